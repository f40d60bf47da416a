//! What people see: narrow terminals, colours, pipes, help for the shell.

use super::{Run, tensorkeep, text};
use std::process::Command;
use tensorkeep::{Progress, Snapshot, Store, StoreOptions};

#[test]
fn a_terminal_of_40_columns_gets_lines_of_40() {
    let run = Run::new("narrow");
    for args in
        [["ls", &run.path("run")], ["show", &run.path("file.tkeep")], ["stats", &run.path("file.tkeep")]]
    {
        let output =
            Command::new(env!("CARGO_BIN_EXE_tensorkeep")).args(args).env("COLUMNS", "40").output().unwrap();
        assert!(output.status.success());
        let table: Vec<String> = text(&output).lines().skip(4).take(3).map(str::to_owned).collect();
        assert!(table.iter().all(|line| line.chars().count() <= 40), "{args:?}: {table:?}");
    }
}

#[test]
fn in_40_columns_states_and_nan_are_still_seen() {
    let run = Run::new("narrow-state");
    run.damage("run/0001-0000000200.tkeep", 5);
    let values = [1.0, f32::NAN, 2.0];
    let snapshot =
        Snapshot::new().tensor("decoder.layers.31.mlp.experts.7.down_proj.weight", &values[..]).unwrap();
    snapshot.save(run.folder.join("nan.tkeep")).unwrap();
    for (args, word) in [(["ls", &run.path("run")], "damaged"), (["stats", &run.path("nan.tkeep")], "1/0")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tensorkeep"));
        let output = command.args(args).env("COLUMNS", "40").output().unwrap();
        assert!(text(&output).contains(word), "{args:?}: {}", text(&output));
        assert!(text(&output).lines().all(|line| line.chars().count() <= 40), "{}", text(&output));
    }
}

#[test]
fn in_40_columns_a_number_is_whole_or_not_there() {
    let run = Run::new("narrow-numbers");
    let folder = run.path("long");
    for attempt in 0..2_u64 {
        let store = Store::open(&folder, StoreOptions::new()).unwrap();
        store.resume().unwrap();
        let progress = Progress::new(1_234_567_890 + attempt).epoch(1_234_567);
        let metrics = ["loss", "accuracy", "perplexity"].map(|name| (name, 0.12345 + attempt as f64));
        store.log(&progress, metrics);
        store.save(&Snapshot::new().progress(progress)).unwrap();
        store.close().unwrap();
    }
    let narrow = |verb: &str, columns: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tensorkeep"));
        text(&command.args([verb, &folder]).env("COLUMNS", columns).output().unwrap())
    };
    for verb in ["ls", "history"] {
        let wide = narrow(verb, "1000");
        for columns in ["24", "40", "60", "80"] {
            let table = narrow(verb, columns);
            let rows = table.lines().skip(1).take(2);
            // What is cut is cut between numbers.
            let words = rows.clone().flat_map(str::split_whitespace).map(|word| word.trim_end_matches('…'));
            words.for_each(|word| assert!(wide.contains(word), "{word} of {columns} columns: {table}"));
            assert!(rows.clone().all(|row| row.chars().count() <= columns.parse().unwrap()), "{table}");
        }
    }
    let history = narrow("history", "40");
    assert!(history.lines().nth(1).unwrap().ends_with("closed"), "{history}");
    assert!(!history.lines().next().unwrap().contains("started"), "{history}");
}

#[test]
fn completions_of_every_shell_and_the_man_page_name_every_verb() {
    let help = text(&tensorkeep(&["--help"]));
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    // A verb stands two columns in; what goes on below it stands further in.
    let verbs: Vec<&str> = commands
        .lines()
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.contains(&"ls") && verbs.contains(&"salvage"), "{commands}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = tensorkeep(&["completions", shell]);
        assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {output:?}");
        verbs.iter().for_each(|verb| assert!(text(&output).contains(verb), "{shell} does not know {verb}"));
    }
    let man = text(&tensorkeep(&["man"]));
    assert!(man.contains(".TH tensorkeep"), "{man}");
    for verb in verbs {
        assert!(man.contains(&format!(".SH {}", verb.to_uppercase())), "the man page has no {verb}");
    }
}

#[test]
fn nothing_is_coloured_when_it_is_not_read_by_a_terminal() {
    let run = Run::new("colour");
    run.damage("run/0001-0000000200.tkeep", 5);
    for args in [["ls", &run.path("run")], ["show", &run.path("file.tkeep")]] {
        assert!(!tensorkeep(&args).stdout.contains(&0x1b), "{args:?}");
    }
}

#[test]
fn a_pipe_that_closes_early_is_no_error() {
    let run = Run::new("pipe");
    let command = format!("{} show {} | head -n 1", env!("CARGO_BIN_EXE_tensorkeep"), run.path("file.tkeep"));
    let output = Command::new("bash").args(["-o", "pipefail", "-c", &command]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// `script` of util-linux is a terminal to what it runs.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_gets_colours_unless_no_color_is_set() {
    let run = Run::new("no-color");
    run.damage("run/0001-0000000200.tkeep", 5);
    let command = format!("{} ls {}", env!("CARGO_BIN_EXE_tensorkeep"), run.path("run"));
    let coloured = |no_color: Option<&str>| {
        let mut script = Command::new("script");
        script
            .args(["-qec", &command, "/dev/null"])
            .stdin(std::process::Stdio::null())
            .env_remove("NO_COLOR");
        let output = script.envs(no_color.map(|value| ("NO_COLOR", value))).output().unwrap();
        assert!(text(&output).contains("damaged"), "{output:?}");
        text(&output).contains("\x1b[31m")
    };
    assert!(coloured(None) && coloured(Some("")), "an empty value is none");
    assert!(!coloured(Some("1")));
}
