//! Files of other formats, by every verb that only looks at them, and importing without holding
//! them in memory.

#[path = "common/files.rs"]
mod files;

use files::{Folder, json, made, tensorkeep};
use std::process::{Command, Stdio};

#[test]
fn every_verb_that_only_looks_takes_every_format() {
    for (name, format) in [
        ("one.safetensors", "safetensors"),
        ("model.safetensors.index.json", "safetensors"),
        ("f32.npy", "npy"),
        ("stored.npz", "npz"),
        ("deflated.npz", "npz"),
        ("state_dict.pt", "pt"),
        ("checkpoint.pt", "pt"),
        ("model.gguf", "gguf"),
    ] {
        let file = made(name);
        let shown = json(&["show", &file, "--json", "--values", "2"]);
        assert_eq!(shown["format"], format, "{name}");
        let tensor = shown["tensors"][0]["name"].as_str().unwrap();
        assert_eq!(json(&["stats", &file, "--json"])["schema"], "tensorkeep.stats.v1", "{name}");
        assert_eq!(json(&["diff", &file, &file, "--json"])["same"], true, "{name}");
        assert_eq!(json(&["get", &file, tensor, "--json"])["tensor"], tensor, "{name}");
        for depth in [&["verify", &file, "--json"][..], &["verify", &file, "--quick", "--json"]] {
            let verified = json(depth);
            assert_eq!(
                (&verified["ok"], &verified["checkpoints"][0]["format"]),
                (&true.into(), &format.into())
            );
        }
    }
}

#[test]
fn verify_reads_a_foreign_file_whole_and_finds_nan() {
    let folder = Folder::new("verify");
    let file = folder.path("cut.npz");
    let mut bytes = std::fs::read(made("deflated.npz")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle - 200..middle].fill(0xA5);
    std::fs::write(&file, bytes).unwrap();
    let output = tensorkeep(&["verify", &file]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");

    // One bit of a stored array, which is read where it lies.
    let file = folder.path("flipped.pt");
    let mut bytes = std::fs::read(made("state_dict.pt")).unwrap();
    let one = 1.0_f32.to_le_bytes();
    let at = bytes.windows(4).position(|window| window == one).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let output = tensorkeep(&["verify", &file]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(4) && text.contains("checksum of archive member"), "{text}");

    // A safetensors file by hand: 8 bytes of length, a JSON header, the values.
    let header = br#"{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend([1.0, f32::NAN, 3.0, f32::INFINITY].iter().flat_map(|value| value.to_le_bytes()));
    let file = folder.path("nan.safetensors");
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(tensorkeep(&["verify", &file]).status.code(), Some(0));
    let output = tensorkeep(&["verify", &file, "--deep"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("w: 2 NaN or Inf, the first at 1") && text.contains("not verified"), "{text}");
    let got = json(&["get", &file, "w", "--json"]);
    assert_eq!(got["values"], serde_json::json!([1, "NaN", 3, "inf"]), "numbers are numbers in JSON");
}

#[test]
fn the_extremes_of_64_bit_integers_are_exact() {
    let folder = Folder::new("exact");
    let header = r#"{"i":{"dtype":"I64","shape":[3],"data_offsets":[0,24]},"u":{"dtype":"U64","shape":[2],"data_offsets":[24,40]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend([(1_i64 << 53) + 1, -5, i64::MIN].iter().flat_map(|value| value.to_le_bytes()));
    bytes.extend([u64::MAX, u64::MAX - 2].iter().flat_map(|value| value.to_le_bytes()));
    let file = folder.path("x.safetensors");
    std::fs::write(&file, &bytes).unwrap();
    let stats = json(&["stats", &file, "--json"]);
    let of =
        |at: usize| [&stats["tensors"][at]["min"], &stats["tensors"][at]["max"]].map(ToString::to_string);
    assert_eq!(of(0), [i64::MIN.to_string(), ((1_i64 << 53) + 1).to_string()]);
    assert_eq!(of(1), [(u64::MAX - 2).to_string(), u64::MAX.to_string()]);
}

/// Kilobytes that a process had at most, as the kernel counts; it only grows, so the last look is
/// the answer.
fn peak(mut command: Command) -> u64 {
    // A process that has ended before it was looked at is started again.
    (0..100).map(|_| peak_once(&mut command)).find(|peak| *peak > 0).expect("each has ended at once")
}

fn peak_once(command: &mut Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(now.unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return peak;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn two_elements_of_five_gigabytes_are_two_elements_read() {
    use std::io::Write;
    const BYTES: u64 = 5_000_000_000;
    let folder = Folder::new("five-gigabytes");
    let file = folder.path("big.safetensors");
    let header = format!(r#"{{"w":{{"dtype":"U8","shape":[{BYTES}],"data_offsets":[0,{BYTES}]}}}}"#);
    let mut out = std::fs::File::create(&file).unwrap();
    out.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    out.write_all(header.as_bytes()).unwrap();
    // A hole: the file is long and takes no room on the disk.
    out.set_len(8 + header.len() as u64 + BYTES).unwrap();
    drop(out);
    let wanted = format!("w[{}:{BYTES}]", BYTES - 2);
    assert_eq!(json(&["get", &file, &wanted, "--json"])["values"], serde_json::json!([0, 0]));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tensorkeep"));
    command.args(["get", &file, &wanted]);
    let kilobytes = peak(command);
    println!("{kilobytes} kB");
    assert!((1000..100_000).contains(&kilobytes), "{kilobytes} kB");
}

#[test]
#[cfg(target_os = "linux")]
fn importing_and_exporting_hold_about_one_tensor_at_a_time() {
    use std::io::Write;
    const TENSORS: usize = 8;
    const BYTES: usize = 32 << 20;
    let folder = Folder::new("memory");
    let (file, kept) = (folder.path("large.safetensors"), folder.path("large.tkeep"));
    let entry = |i: usize| {
        let (start, end) = (i * BYTES, (i + 1) * BYTES);
        format!(r#""t{i}":{{"dtype":"F32","shape":[{}],"data_offsets":[{start},{end}]}}"#, BYTES / 4)
    };
    let header = format!("{{{}}}", (0..TENSORS).map(entry).collect::<Vec<_>>().join(","));
    let mut out = std::fs::File::create(&file).unwrap();
    out.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    out.write_all(header.as_bytes()).unwrap();
    (0..TENSORS).for_each(|i| out.write_all(&vec![i as u8; BYTES]).unwrap());
    drop(out);
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tensorkeep"));
        command.args(args);
        peak(command)
    };
    let import = run(&["import", &file, "-o", &kept]);
    let export = run(&["export", &kept, "-o", &folder.path("back.safetensors")]);
    for (what, kilobytes) in [("import", import), ("export", export)] {
        let tensors = kilobytes as f64 * 1024.0 / BYTES as f64;
        println!("{what}: {kilobytes} kB, {tensors:.2} tensors of {TENSORS}");
        assert!(kilobytes > 1000 && tensors < 2.0, "{what} held {tensors:.2} of {TENSORS} tensors");
    }
}
