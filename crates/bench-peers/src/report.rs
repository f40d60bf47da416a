//! Rows for readers: on the terminal, and as a page with curves.

pub mod html;
mod plot;
pub mod table;

/// Seconds in a unit that keeps figures short.
pub fn duration(seconds: f64) -> String {
    match seconds {
        _ if seconds < 1e-3 => format!("{:.1} µs", seconds * 1e6),
        _ if seconds < 1.0 => format!("{:.2} ms", seconds * 1e3),
        _ => format!("{seconds:.3} s"),
    }
}

/// Bytes likewise.
pub fn size(bytes: u64) -> String {
    match bytes as f64 {
        bytes if bytes < 1e6 => format!("{:.1} kB", bytes / 1e3),
        bytes if bytes < 1e9 => format!("{:.1} MB", bytes / 1e6),
        bytes => format!("{:.2} GB", bytes / 1e9),
    }
}

/// Bytes a second in GB, where there are bytes.
pub fn speed(bytes: u64, seconds: f64) -> String {
    if bytes == 0 || seconds == 0.0 { String::new() } else { format!("{:.2}", bytes as f64 / seconds / 1e9) }
}
