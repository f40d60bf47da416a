//! Pages of several runs, of one file, and live ones.

use super::made::{Made, Plan};
use super::window::Window;
use std::process::{Command, Stdio};

fn tensorkeep(arguments: &[&str]) -> String {
    let done = Command::new(env!("CARGO_BIN_EXE_tensorkeep")).args(arguments).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn path(made: &Made, name: &str) -> String {
    made.0.with_file_name(name).display().to_string()
}

/// Row 13: several runs.
#[test]
fn several_runs_are_drawn_over_each_other() {
    let runs: Vec<Made> =
        [2, 4, 6].iter().map(|&saves| Made::new(&Plan { attempts: 2, saves, ..Plan::usual() })).collect();
    let folders: Vec<String> = runs.iter().map(|run| run.0.display().to_string()).collect();
    let out = path(&runs[0], "runs.html");
    let mut arguments = vec!["report", "-o", &out];
    arguments.extend(folders.iter().map(String::as_str));
    tensorkeep(&arguments);
    let Some(window) = Window::open(&format!("file://{out}")) else { return };
    assert!(window.text(".say").contains("is best, val_accuracy"), "{}", window.text(".say"));
    assert_eq!(window.count("#runs tbody tr"), 3);
    assert_eq!(window.count("#overlay path.curve"), 3);
    window.hover("#overlay svg[role=slider]", 0.9, 0.5);
    assert!(
        window.text("#vals").contains("at step") && window.text("#vals").contains("ended"),
        "{}",
        window.text("#vals")
    );
    window.hover("h1", 0.5, 0.5);
    window.click("#runs tbody tr input");
    assert_eq!(window.count("#overlay path.curve"), 2);
    window.choose("#overlay", "x axis", "time");
    window.fill("#rfilter", "nothing like it");
    assert!(window.text("#runs").contains("No run matches"));
    window.look_at_all("runs", 1400, "light");
    window.look_at_all("runs", 400, "dark");
    assert_eq!(window.too_wide(), [""; 0]);
    assert_eq!(window.heard().iter().filter(|heard| !heard.starts_with("file://")).count(), 0);
}

/// Row 13: a file.
#[test]
fn one_file_is_drawn_by_module() {
    let made = Made::new(&Plan { attempts: 1, saves: 2, ..Plan::usual() });
    let file = made.0.join(made.names().last().unwrap()).display().to_string();
    let foreign = path(&made, "model.safetensors");
    tensorkeep(&["export", &file, "-o", &foreign, "--allow-loss"]);
    for (target, say) in
        [(&file, "Every byte is as it was written."), (&foreign, "safetensors has no checksums")]
    {
        let out = path(&made, "file.html");
        tensorkeep(&["report", target, "-o", &out, "--force"]);
        let Some(window) = Window::open(&format!("file://{out}")) else { return };
        assert!(window.text("#verdict").contains(say), "{}", window.text("#verdict"));
        assert!(window.text(".say").contains("49 tensors; every value is finite"), "{}", window.text(".say"));
        assert!(
            window.texts(".blk h3").iter().any(|title| title.starts_with("model/layers.{0…5}")),
            "{:?}",
            window.texts(".blk h3")
        );
        assert!(!window.text("#meta").contains("tensorkeep.history"), "{}", window.text("#meta"));
        window.fill("#ffilter", "layers gate");
        window.click(".leaf");
        let before = window.text(".det h3");
        window.click(".pick button:nth-child(5)");
        let after = window.text(".det h3");
        assert!(after != before && after.contains(".4."), "the picker keeps the tensor: {before} {after}");
        window.look_at_all("file", 1400, "light");
        assert_eq!(window.too_wide(), [""; 0]);
        assert_eq!(window.heard().iter().filter(|heard| !heard.starts_with("file://")).count(), 0);
    }
}

#[test]
fn a_served_page_updates_while_training_goes_on() {
    use tensorkeep::engine::Local;
    use tensorkeep::{Progress, Snapshot, Store, StoreOptions};
    let made = Made::new(&Plan { attempts: 1, saves: 4, ..Plan::usual() });
    let mut server = Command::new(env!("CARGO_BIN_EXE_tensorkeep"))
        .args(["--json", "serve", &made.0.display().to_string(), "--port", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(server.stdout.take().unwrap()), &mut line)
        .unwrap();
    let said: serde_json::Value = serde_json::from_str(&line).unwrap();
    let url = said["url"].as_str().unwrap().to_owned();
    let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"), "200"),
        (format!("GET /mark HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"), "200"),
        ("GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".to_owned(), "403"),
        (format!("GET /../etc/passwd HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"), "404"),
        (
            format!("POST / HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
            "405",
        ),
    ] {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}: {}",
            &answer[..60.min(answer.len())]
        );
        assert!(answer.contains("Content-Security-Policy: default-src 'none'"));
    }
    if let Some(window) = Window::open(&url) {
        assert!(window.text(".say").contains("step 40"), "{}", window.text(".say"));
        window.choose("#curves", "y axis", "log");
        std::thread::sleep(std::time::Duration::from_millis(2_500));
        let store = Store::open(Local::open(&made.0).unwrap(), StoreOptions::new()).unwrap();
        store.resume().unwrap();
        store.save(&Snapshot::new().progress(Progress::new(50))).unwrap();
        for _ in 0..40 {
            std::thread::sleep(std::time::Duration::from_millis(250));
            if window.text(".say").contains("step 50") {
                break;
            }
        }
        assert!(window.text(".say").contains("step 50"), "{}", window.text(".say"));
        let kept = "document.querySelector('#curves input[value=log]').checked";
        assert_eq!(window.js(kept), true, "what was chosen stays chosen");
    }
    server.kill().unwrap();
    server.wait().unwrap();
}
