use tensorkeep::{Model, Stateful};

#[derive(Stateful)]
struct Net {
    #[stateful(skip, rename = "w")]
    weight: Vec<f32>,
}

#[derive(Stateful)]
struct Marked {
    #[model(config)]
    #[stateful(flatten)]
    config: u32,
}

#[derive(Stateful, Model)]
#[model(kind = "a", kind = "b")]
struct Twice(Vec<f32>);

fn main() {}
