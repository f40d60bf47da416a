//! `#[derive(Stateful)]` and `#[derive(Model)]` for tensorkeep, which re-exports both behind its
//! feature `derive`.
//!
//! The macros contain no logic: `Stateful` becomes one call of `with_field` for each field, once
//! for reading and once for writing, from one list of names. The trait `StateField` of a field's
//! type decides how it is saved (a tensor, a module, a list of either); a macro sees only the
//! spelling of a type.

mod attributes;
mod model;
mod stateful;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Implements `Stateful`: each field under its name, nested modules as `outer.inner`.
///
/// * Named fields are named after themselves, unnamed ones are numbered from 0.
/// * A `Vec`, an array or a boxed slice of modules numbers them: `layers.0.weight`. Of numbers it
///   is one tensor, and each array around them is an axis.
/// * `Option` has the names of its content, or none; `Box` has those of its content.
/// * An enum has the names of its variant. A variant of one unnamed field has the names of that
///   field.
///
/// Attributes of a field:
///
/// * `#[stateful(skip)]`: it has no tensors, or they are not saved.
/// * `#[stateful(rename = "w")]`: it is called `w` on disk; on a variant, a prefix of its names.
/// * `#[stateful(flatten)]`: the tensors of a module stand among the others, without a prefix.
///
/// Attribute of the type: `#[stateful(bound = "S: DataMut<Elem = f32>")]` replaces the bounds of
/// the generated impl, which require of each field that mentions a type parameter that it can be
/// saved.
#[proc_macro_derive(Stateful, attributes(stateful, model))]
pub fn derive_stateful(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    stateful::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Implements `Model`, by which a checkpoint rebuilds a whole model.
///
/// `#[model(kind = "lenet", build = LeNet::zeros)]` on the type:
///
/// * `kind`: the stable name that is stored with it.
/// * `build`: a function or closure `fn(&Config) -> tensorkeep::Result<Self>`; its values do not
///   matter.
/// * The configuration is the field marked `#[model(config)]`, which is cloned and which
///   `#[derive(Stateful)]` leaves out. Where no field holds it, `config = Type` names the type and
///   `describe` is a function `fn(&Self) -> Type`.
/// * `only = LeNet<Owned>`: the impl is for this type alone, where others of a generic type cannot
///   be built.
#[proc_macro_derive(Model, attributes(stateful, model))]
pub fn derive_model(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    model::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
