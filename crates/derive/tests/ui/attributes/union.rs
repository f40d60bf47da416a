use tensorkeep::Stateful;

#[derive(Stateful)]
union Either {
    a: f32,
    b: u32,
}

fn main() {}
