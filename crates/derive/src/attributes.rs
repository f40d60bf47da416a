//! The attributes `#[stateful(…)]` and `#[model(config)]` of types, variants and fields, parsed and
//! checked.

use proc_macro2::Span;
use syn::punctuated::Punctuated;
use syn::{Attribute, LitStr, Result, Token, WherePredicate};

/// The name of a field on disk.
pub enum Naming {
    /// The field's own.
    Own,
    /// The one in the attribute.
    Renamed(LitStr),
    /// None: its content's names stand among the others.
    Flattened,
    /// Left out.
    Skipped,
}

/// The attributes of a field.
///
/// # Errors
/// An unknown word, or two that contradict each other.
pub fn of_field(attributes: &[Attribute]) -> Result<Naming> {
    let mut naming = if is_config(attributes)? { Naming::Skipped } else { Naming::Own };
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("stateful")) {
        attribute.parse_nested_meta(|meta| {
            let said = if meta.path.is_ident("skip") {
                Naming::Skipped
            } else if meta.path.is_ident("flatten") {
                Naming::Flattened
            } else if meta.path.is_ident("rename") {
                Naming::Renamed(checked_name(meta.value()?.parse()?)?)
            } else {
                return Err(meta.error("expected `skip`, `flatten` or `rename = \"…\"`"));
            };
            match std::mem::replace(&mut naming, said) {
                Naming::Own => Ok(()),
                _ => Err(meta.error("one of `skip`, `flatten`, `rename` and `#[model(config)]` is enough")),
            }
        })?;
    }
    Ok(naming)
}

/// The prefix of a variant's names, if it has one.
///
/// # Errors
/// Any word but `rename`.
pub fn of_variant(attributes: &[Attribute]) -> Result<Option<LitStr>> {
    let mut name = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("stateful")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("rename") {
                return Err(
                    meta.error("of a variant expected `rename = \"…\"`; the others are for its fields")
                );
            }
            name = Some(checked_name(meta.value()?.parse()?)?);
            Ok(())
        })?;
    }
    Ok(name)
}

/// The bounds that replace those of the generated impl.
pub type Bounds = Punctuated<WherePredicate, Token![,]>;

/// The bounds in the attributes of a type.
///
/// # Errors
/// Any word but `bound`, or bounds that do not parse.
pub fn of_type(attributes: &[Attribute]) -> Result<Option<Bounds>> {
    let mut bounds = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("stateful")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("bound") {
                return Err(meta.error("of a type expected `bound = \"…\"`; the others are for its fields"));
            }
            let text: LitStr = meta.value()?.parse()?;
            bounds = Some(text.parse_with(Bounds::parse_terminated)?);
            Ok(())
        })?;
    }
    Ok(bounds)
}

/// Whether a field is marked as the configuration of a model.
///
/// # Errors
/// Another word in `#[model(…)]` of a field.
pub fn is_config(attributes: &[Attribute]) -> Result<bool> {
    let mut marked = false;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("model")) {
        attribute.parse_nested_meta(|meta| {
            marked = meta.path.is_ident("config");
            if marked { Ok(()) } else { Err(meta.error("of a field expected `#[model(config)]`")) }
        })?;
    }
    Ok(marked)
}

/// A name that a tensor can have.
fn checked_name(name: LitStr) -> Result<LitStr> {
    let text = name.value();
    if text.is_empty() {
        return Err(error(
            name.span(),
            "the name is empty: use `flatten` for a module without a name of its own",
        ));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(error(name.span(), &format!("{c:?} cannot be in a name"))),
        None => Ok(name),
    }
}

pub fn error(span: Span, text: &str) -> syn::Error {
    syn::Error::new(span, text)
}
