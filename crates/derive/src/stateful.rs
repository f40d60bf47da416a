//! `#[derive(Stateful)]`: one pass over the fields makes one list of names, from which both
//! directions are generated.

use crate::attributes::{self, Naming, error};
use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use std::collections::BTreeSet;
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Fields, Result, Type, WhereClause};

/// A field that has tensors: where it is bound, its name on disk, its type.
struct Saved {
    binding: Ident,
    name: String,
    ty: Type,
}

/// One arm of the match over the value; a struct has one.
struct Arm {
    pattern: TokenStream,
    fields: Vec<Saved>,
}

/// The impl of `Stateful`.
///
/// # Errors
/// Attributes without effect, duplicate names, a union.
pub fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let arms = arms(input)?;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let bounds = bounds(input, &arms, where_clause.cloned())?;
    let name = &input.ident;
    let reading = direction(&arms, &quote!(::tensorkeep::StateDict));
    let writing = direction(&arms, &quote!(::tensorkeep::StateDictMut));
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics ::tensorkeep::Stateful for #name #type_generics #bounds {
            fn state_dict(&self) -> ::tensorkeep::Result<::tensorkeep::StateDict<'_>> {
                #reading
            }

            fn state_dict_mut(&mut self) -> ::tensorkeep::Result<::tensorkeep::StateDictMut<'_>> {
                #writing
            }
        }
    })
}

/// The body of one of the two functions: the same names for `dict`.
fn direction(arms: &[Arm], dict: &TokenStream) -> TokenStream {
    if arms.is_empty() {
        return quote!(match *self {});
    }
    let arms = arms.iter().map(|Arm { pattern, fields }| {
        let steps = fields.iter().map(|Saved { binding, name, ty }| {
            quote_spanned!(ty.span()=> let state = #dict::with_field(state, #name, #binding)?;)
        });
        quote!(#pattern => { #(#steps)* state })
    });
    quote! {
        let state = #dict::new();
        let state = match self { #(#arms)* };
        ::core::result::Result::Ok(state)
    }
}

fn arms(input: &DeriveInput) -> Result<Vec<Arm>> {
    match &input.data {
        Data::Struct(data) => Ok(vec![arm(&quote!(Self), &data.fields, "", false)?]),
        Data::Enum(data) => {
            let variants = data.variants.iter().map(|variant| {
                let prefix =
                    attributes::of_variant(&variant.attrs)?.map_or_else(String::new, |name| name.value());
                let ident = &variant.ident;
                arm(&quote!(Self::#ident), &variant.fields, &prefix, is_newtype(&variant.fields))
            });
            variants.collect()
        }
        Data::Union(data) => Err(error(
            data.union_token.span(),
            "a union cannot be saved, because nothing says which field it holds: use an enum",
        )),
    }
}

fn is_newtype(fields: &Fields) -> bool {
    matches!(fields, Fields::Unnamed(fields) if fields.unnamed.len() == 1)
}

/// One arm. The content of a newtype variant has no name of its own: its number would say nothing.
fn arm(path: &TokenStream, fields: &Fields, prefix: &str, newtype: bool) -> Result<Arm> {
    let mut patterns = Vec::new();
    let mut saved = Vec::new();
    let mut names = BTreeSet::new();
    for (i, field) in fields.iter().enumerate() {
        let member = field.ident.as_ref().map_or_else(|| i.to_string(), |ident| ident.unraw().to_string());
        let own = match attributes::of_field(&field.attrs)? {
            Naming::Skipped => {
                patterns.push(pattern(field.ident.as_ref(), quote!(_)));
                continue;
            }
            Naming::Flattened => String::new(),
            Naming::Own if newtype => String::new(),
            Naming::Own => member,
            Naming::Renamed(name) => name.value(),
        };
        let name = if prefix.is_empty() || own.is_empty() {
            [prefix, &own].concat()
        } else {
            format!("{prefix}.{own}")
        };
        if !name.is_empty() && !own.is_empty() && !names.insert(name.clone()) {
            return Err(error(field.span(), &format!("two fields are called {name:?}: rename one of them")));
        }
        let binding = format_ident!("field{i}", span = field.ty.span().resolved_at(Span::mixed_site()));
        patterns.push(pattern(field.ident.as_ref(), binding.to_token_stream()));
        saved.push(Saved { binding, name, ty: field.ty.clone() });
    }
    let pattern = match fields {
        Fields::Named(_) => quote!(#path { #(#patterns),* }),
        Fields::Unnamed(_) => quote!(#path ( #(#patterns),* )),
        Fields::Unit => path.clone(),
    };
    Ok(Arm { pattern, fields: saved })
}

fn pattern(ident: Option<&Ident>, binding: TokenStream) -> TokenStream {
    match ident {
        Some(ident) => quote!(#ident: #binding),
        None => binding,
    }
}

/// Requires of each field whose type depends on a type parameter that it can be saved, unless the
/// attribute gives other bounds.
///
/// A bound on the field's type is exact where a bound on the parameter is not: `S` of `ArrayBase<S,
/// Ix2>` is no tensor. A type that contains itself is left out, since its bound would require
/// itself.
fn bounds(input: &DeriveInput, arms: &[Arm], own: Option<WhereClause>) -> Result<Option<WhereClause>> {
    let given = attributes::of_type(&input.attrs)?;
    let parameters: BTreeSet<String> = input.generics.type_params().map(|p| p.ident.to_string()).collect();
    let itself = [input.ident.to_string(), "Self".to_owned()];
    let mut clause = own
        .unwrap_or_else(|| WhereClause { where_token: Default::default(), predicates: Default::default() });
    if let Some(given) = given {
        clause.predicates.extend(given);
        return Ok(Some(clause));
    }
    for Saved { ty, .. } in arms.iter().flat_map(|arm| &arm.fields) {
        let depends = mentions(ty.to_token_stream(), &|ident| parameters.contains(ident));
        let recursive = mentions(ty.to_token_stream(), &|ident| itself.iter().any(|name| name == ident));
        if depends && !recursive {
            clause.predicates.push(syn::parse_quote!(#ty: ::tensorkeep::state_dict::StateField));
        }
    }
    Ok(Some(clause))
}

fn mentions(tokens: TokenStream, wanted: &dyn Fn(&str) -> bool) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => wanted(&ident.to_string()),
        TokenTree::Group(group) => mentions(group.stream(), wanted),
        _ => false,
    })
}
