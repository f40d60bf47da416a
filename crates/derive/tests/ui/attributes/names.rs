use tensorkeep::Stateful;

#[derive(Stateful)]
struct Twice {
    weight: Vec<f32>,
    #[stateful(rename = "weight")]
    other: Vec<f32>,
}

#[derive(Stateful)]
struct Empty {
    #[stateful(rename = "")]
    weight: Vec<f32>,
}

#[derive(Stateful)]
struct Control {
    #[stateful(rename = "a\nb")]
    weight: Vec<f32>,
}

fn main() {}
