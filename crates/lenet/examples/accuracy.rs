//! Trains with the default settings and prints loss, accuracy and seconds of each epoch.
//!
//! `cargo run --release -p lenet --example accuracy [folder with MNIST] [seed]`; without a folder,
//! or with `-`, on drawn digits.

use lenet::{Data, Settings, Trainer};
use std::path::Path;
use std::time::Instant;

fn main() -> tensorkeep::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().filter(|folder| folder != "-");
    let seed = arguments.next().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let started = Instant::now();
    let data = Data::open(folder.as_deref().map(Path::new), seed)?;
    println!("{} ({:.2} s)", data.describe(), started.elapsed().as_secs_f64());
    let mut trainer = Trainer::new(Settings { seed, ..Settings::default() });
    println!("{}", trainer.net());
    while !trainer.is_finished() {
        let started = Instant::now();
        let loss = trainer.finish_epoch(&data.train);
        let seconds = started.elapsed().as_secs_f64();
        let accuracy = 100.0 * trainer.evaluate(&data.test);
        let epoch = trainer.progress().epoch;
        println!("epoch {epoch}: loss {loss:.4}, accuracy {accuracy:.2} %, {seconds:.2} s");
    }
    Ok(())
}
