use tensorkeep::{Model, Stateful};

#[derive(Stateful, Model)]
struct NoKind(Vec<f32>);

#[derive(Stateful, Model)]
#[model(kind = "")]
struct EmptyKind(Vec<f32>);

#[derive(Stateful, Model)]
#[model(kind = "net")]
struct NoBuild(Vec<f32>);

#[derive(Stateful, Model)]
#[model(kind = "net", build = Self::new)]
struct NoConfig(Vec<f32>);

#[derive(Stateful, Model)]
#[model(kind = "net", build = Self::new, config = usize)]
struct NoDescribe(Vec<f32>);

#[derive(Stateful, Model)]
#[model(kind = "net", build = Self::new, config = usize)]
struct Both(#[model(config)] usize);

#[derive(Stateful, Model)]
#[model(kind = "net", build = Self::new)]
struct TwoConfigs(#[model(config)] usize, #[model(config)] usize);

#[derive(Stateful, Model)]
#[model(kind = "net", built = Self::new)]
struct Misspelt(#[model(config)] usize);

#[derive(Stateful, Model)]
#[model(kind = "net", build = Self::new)]
enum OfAVariant {
    Net(#[model(config)] usize, Vec<f32>),
}

fn main() {}
