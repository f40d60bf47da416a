use tensorkeep::Stateful;

struct Settings;

#[derive(Stateful)]
struct Net {
    weight: Vec<f32>,
    name: String,
}

#[derive(Stateful)]
struct Outer {
    settings: Settings,
}

#[derive(Stateful)]
struct Masked {
    mask: Vec<bool>,
}

fn main() {}
