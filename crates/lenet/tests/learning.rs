//! Training learns; `examples/accuracy.rs` measures how well.

use lenet::{Settings, Trainer, data};

#[test]
fn three_epochs_of_2000_drawn_digits_tell_most_others_apart() {
    let (train, test) = data::drawn(0, 0..2500).unwrap().split(2000).unwrap();
    let mut trainer = Trainer::new(Settings { batch_size: 16, ..Settings::default() });
    let before = trainer.evaluate(&test);
    assert!(before < 0.3, "an untrained net cannot know: {before}");
    for _ in 0..3 {
        trainer.finish_epoch(&train);
    }
    let after = trainer.evaluate(&test);
    assert!(after > 0.85, "{after}");
}
