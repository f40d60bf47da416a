use tensorkeep::Stateful;

#[derive(Stateful)]
struct Net {
    #[stateful(ignore)]
    weight: Vec<f32>,
}

#[derive(Stateful)]
#[stateful(rename = "net")]
struct Renamed {
    weight: Vec<f32>,
}

#[derive(Stateful)]
enum Layer {
    #[stateful(skip)]
    Relu,
}

fn main() {}
