//! `#[derive(Model)]`: the kind, the place of the configuration, and the function that builds a
//! model.

use crate::attributes::{error, is_config};
use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Expr, Ident, LitStr, Member, Result, Type};

/// The content of `#[model(…)]` on the type.
#[derive(Default)]
struct Said {
    kind: Option<LitStr>,
    build: Option<Expr>,
    config: Option<Type>,
    describe: Option<Expr>,
    only: Option<Type>,
}

/// The impl of `Model`.
///
/// # Errors
/// A word that is missing, repeated or malformed, each with the form to write.
pub fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let said = said(input)?;
    let missing = |what: &str| error(input.ident.span(), what);
    let kind =
        said.kind.ok_or_else(|| missing("no kind: add `#[model(kind = \"…\", …)]`, a name that stays"))?;
    if kind.value().is_empty() {
        return Err(error(kind.span(), "the kind is empty: checkpoints are told apart by it"));
    }
    let build = said.build.ok_or_else(|| {
        missing("nothing builds the model: add `#[model(build = …)]`, a `fn(&Config) -> tensorkeep::Result<Self>`")
    })?;
    let (config, described) = configuration(input, said.config, said.describe)?;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let name = &input.ident;
    let head = match said.only {
        Some(only) => quote!(impl ::tensorkeep::Model for #only),
        None => quote!(impl #impl_generics ::tensorkeep::Model for #name #type_generics #where_clause),
    };
    let built = quote_spanned! {build.span()=>
        let build: fn(&Self::Config) -> ::tensorkeep::Result<Self> = #build;
    };
    Ok(quote! {
        #[automatically_derived]
        #head {
            const KIND: &'static str = #kind;
            type Config = #config;

            fn config(&self) -> Self::Config {
                #described
            }

            fn from_config(config: &Self::Config) -> ::tensorkeep::Result<Self> {
                #built
                build(config)
            }
        }
    })
}

/// The configuration's type, and the expression that gives it.
fn configuration(
    input: &DeriveInput,
    config: Option<Type>,
    describe: Option<Expr>,
) -> Result<(Type, TokenStream)> {
    match (marked(input)?, config, describe) {
        (Some((member, ty)), None, None) => Ok((ty, quote!(::core::clone::Clone::clone(&self.#member)))),
        (None, Some(ty), Some(describe)) => {
            let described = quote_spanned! {describe.span()=>
                let describe: fn(&Self) -> Self::Config = #describe;
                describe(self)
            };
            Ok((ty, described))
        }
        (Some((member, _)), ..) => Err(error(
            member.span(),
            "the marked field says type and value: leave `config` and `describe` out",
        )),
        (None, Some(ty), None) => Err(error(
            ty.span(),
            "nothing gives the configuration: mark the field that holds it by `#[model(config)]` and leave \
             this out, or add `describe = …`, a `fn(&Self) -> Config`",
        )),
        (None, None, describe) => Err(error(
            describe.map_or(input.ident.span(), |describe| describe.span()),
            "no configuration: mark the field that holds it by `#[model(config)]`, or add \
             `#[model(config = Type, describe = …)]`",
        )),
    }
}

/// The field that is marked as the configuration.
fn marked(input: &DeriveInput) -> Result<Option<(Member, Type)>> {
    let data = match &input.data {
        Data::Struct(data) => data,
        Data::Enum(data) => {
            // Each variant would need one: told here, since the field was marked on purpose.
            for field in data.variants.iter().flat_map(|variant| &variant.fields) {
                if is_config(&field.attrs)? {
                    return Err(error(
                        field.span(),
                        "no field of an enum holds the configuration of all its variants: add \
                         `#[model(config = Type, describe = …)]` to the enum",
                    ));
                }
            }
            return Ok(None);
        }
        Data::Union(_) => return Ok(None),
    };
    let mut found = None;
    for (field, member) in data.fields.iter().zip(data.fields.members()) {
        if is_config(&field.attrs)? && found.replace((member, field.ty.clone())).is_some() {
            return Err(error(field.span(), "two fields are marked `#[model(config)]`: a model has one"));
        }
    }
    Ok(found)
}

fn said(input: &DeriveInput) -> Result<Said> {
    let mut said = Said::default();
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("model")) {
        attribute.parse_nested_meta(|meta| {
            let Some(word) = meta.path.get_ident().map(Ident::to_string) else {
                return Err(meta.error(WORDS));
            };
            let span = meta.path.span();
            match word.as_str() {
                "kind" => once(&mut said.kind, meta.value()?.parse()?, span),
                "build" => once(&mut said.build, meta.value()?.parse()?, span),
                "config" => once(&mut said.config, meta.value()?.parse()?, span),
                "describe" => once(&mut said.describe, meta.value()?.parse()?, span),
                "only" => once(&mut said.only, meta.value()?.parse()?, span),
                _ => Err(meta.error(WORDS)),
            }
        })?;
    }
    Ok(said)
}

const WORDS: &str = "expected `kind = \"…\"`, `build = …`, `config = Type`, `describe = …` or `only = Type`";

fn once<T>(place: &mut Option<T>, value: T, span: Span) -> Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(error(span, "said twice")),
    }
}
