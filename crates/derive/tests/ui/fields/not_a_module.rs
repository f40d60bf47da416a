use tensorkeep::{Snapshot, Stateful};

struct Net {
    weight: Vec<f32>,
}

fn state(net: &impl Stateful) {
    let _ = Snapshot::new().state_dict("model", net.state_dict().unwrap());
}

fn main() {
    state(&Net { weight: vec![1.0] });
}
