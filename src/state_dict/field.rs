//! The types of a module's fields: one tensor, a module, or several of either under numbered names.
//!
//! A derive sees the spelling of a type and not its meaning, so the type itself must decide, and
//! stable Rust has no specialization by which "every number" and "every module" could be two
//! blanket impls. There is one blanket impl: every [`Stateful`] type is a field, by derive or by
//! hand. Numbers, arrays and containers are separate impls, for types that are not modules.
//! Coherence accepts that because of the orphan rule: `Stateful` is this crate's trait, and `f32`,
//! `Vec` and `ArrayBase` are foreign to the user's crate, so no other crate can implement it for
//! them. `Box` is the exception (it is fundamental: another crate may implement a trait for
//! `Box<Own>`), so a box of a module is itself `Stateful`, and only the boxed slice is listed here.
//! The element decides whether a `Vec<T>` is one tensor or a list of modules: a `Vec` passes all of
//! its elements to `T::add_all_to`, which makes one tensor of numbers and numbered names of
//! anything else. An array in between passes on its elements and its length as one more axis.

use super::{StateDict, StateDictMut, Stateful};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::marker::PhantomData;

/// A field for `#[derive(Stateful)]` and [`StateDict::with_field`]: every [`Stateful`] module,
/// numbers, and arrays, `Vec`s, options and maps of either.
///
/// | type | names |
/// |---|---|
/// | a module | `field.inner` |
/// | `f32`, `i64`, `f16`, `Complex<f32>` … | `field`, without axes |
/// | `Vec`, array, boxed slice of numbers | `field`, one axis; each array between is one more |
/// | an ndarray | `field`, with its axes |
/// | `Vec`, array, boxed slice of anything else | `field.0`, `field.1` … |
/// | `BTreeMap<String, _>` | `field.key` |
/// | tuple | `field.0`, `field.1` … |
/// | `Option` | those of its content; `None` has none |
///
/// Lengths are part of a shape: loading overwrites elements and never adds any. A `bool` is not a
/// number, because most bytes are not valid bools; keep masks as `u8`. Implement [`Stateful`] for
/// your own types rather than this trait.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither a tensor nor a module",
    label = "has no tensors that could be saved",
    note = "`#[derive(Stateful)]` makes a module of a type; numbers, ndarrays, `Vec`, `Option`, arrays and boxes of either are fields as they are",
    note = "`#[stateful(skip)]` leaves the field out; settings, text and bools go into a record"
)]
pub trait StateField {
    /// Adds its tensors under `name`.
    ///
    /// # Errors
    /// As [`StateDict::with`].
    fn add_to<'a>(&'a self, name: &str, state: StateDict<'a>) -> Result<StateDict<'a>>;

    /// Adds the same tensors, mutable.
    ///
    /// # Errors
    /// As [`StateDictMut::with`].
    fn add_to_mut<'a>(&'a mut self, name: &str, state: StateDictMut<'a>) -> Result<StateDictMut<'a>>;

    /// Adds several values of one type, in row-major order with these axes: each under its number,
    /// unless together they are one tensor.
    #[doc(hidden)]
    fn add_all_to<'a>(
        items: &'a [Self],
        shape: &[usize],
        name: &str,
        mut state: StateDict<'a>,
    ) -> Result<StateDict<'a>>
    where
        Self: Sized,
    {
        for (i, item) in items.iter().enumerate() {
            state = item.add_to(&numbered(name, shape, i), state)?;
        }
        Ok(state)
    }

    /// Like [`StateField::add_all_to`], mutable.
    #[doc(hidden)]
    fn add_all_to_mut<'a>(
        items: &'a mut [Self],
        shape: &[usize],
        name: &str,
        mut state: StateDictMut<'a>,
    ) -> Result<StateDictMut<'a>>
    where
        Self: Sized,
    {
        for (i, item) in items.iter_mut().enumerate() {
            state = item.add_to_mut(&numbered(name, shape, i), state)?;
        }
        Ok(state)
    }
}

impl<T: Stateful + ?Sized> StateField for T {
    fn add_to<'a>(&'a self, name: &str, state: StateDict<'a>) -> Result<StateDict<'a>> {
        Ok(state.with_all(name, self.state_dict()?))
    }

    fn add_to_mut<'a>(&'a mut self, name: &str, state: StateDictMut<'a>) -> Result<StateDictMut<'a>> {
        Ok(state.with_all(name, self.state_dict_mut()?))
    }
}

/// `outer.inner`, or the other one if either is empty.
pub(super) fn joined(outer: &str, inner: &str) -> String {
    if outer.is_empty() || inner.is_empty() { [outer, inner].concat() } else { format!("{outer}.{inner}") }
}

/// The name of the item at this position of a row-major array: one number for each axis.
fn numbered(name: &str, shape: &[usize], mut place: usize) -> String {
    let mut numbers = vec![String::new(); shape.len()];
    for (number, &len) in numbers.iter_mut().zip(shape).rev() {
        *number = (place % len.max(1)).to_string();
        place /= len.max(1);
    }
    joined(name, &numbers.join("."))
}

/// A tensor's own name, which `flatten` would remove.
fn own(name: &str) -> Result<&str> {
    if name.is_empty() {
        return Err(Error::invalid("a tensor needs a name").help("`flatten` is for modules"));
    }
    Ok(name)
}

macro_rules! numbers {
    ($($(#[$when:meta])* $type:ty),* $(,)?) => {
        $($(#[$when])*
        impl StateField for $type {
            fn add_to<'a>(&'a self, name: &str, state: StateDict<'a>) -> Result<StateDict<'a>> {
                Self::add_all_to(std::slice::from_ref(self), &[], name, state)
            }

            fn add_to_mut<'a>(&'a mut self, name: &str, state: StateDictMut<'a>) -> Result<StateDictMut<'a>> {
                Self::add_all_to_mut(std::slice::from_mut(self), &[], name, state)
            }

            fn add_all_to<'a>(
                items: &'a [Self],
                shape: &[usize],
                name: &str,
                state: StateDict<'a>,
            ) -> Result<StateDict<'a>> {
                state.with(own(name)?, (shape, items))
            }

            fn add_all_to_mut<'a>(
                items: &'a mut [Self],
                shape: &[usize],
                name: &str,
                state: StateDictMut<'a>,
            ) -> Result<StateDictMut<'a>> {
                state.with(own(name)?, (shape, items))
            }
        })*
    };
}

numbers! {
    u8, i8, u16, i16, u32, i32, u64, i64, f32, f64, half::f16, half::bf16,
    #[cfg(feature = "ndarray")] num_complex::Complex<f32>,
    #[cfg(feature = "ndarray")] num_complex::Complex<f64>,
}

impl<T: StateField> StateField for Vec<T> {
    fn add_to<'a>(&'a self, name: &str, state: StateDict<'a>) -> Result<StateDict<'a>> {
        T::add_all_to(self, &[self.len()], name, state)
    }

    fn add_to_mut<'a>(&'a mut self, name: &str, state: StateDictMut<'a>) -> Result<StateDictMut<'a>> {
        let shape = [self.len()];
        T::add_all_to_mut(self, &shape, name, state)
    }
}

impl<T: StateField> StateField for Box<[T]> {
    fn add_to<'a>(&'a self, name: &str, state: StateDict<'a>) -> Result<StateDict<'a>> {
        T::add_all_to(self, &[self.len()], name, state)
    }

    fn add_to_mut<'a>(&'a mut self, name: &str, state: StateDictMut<'a>) -> Result<StateDictMut<'a>> {
        let shape = [self.len()];
        T::add_all_to_mut(self, &shape, name, state)
    }
}

impl<T: StateField, const N: usize> StateField for [T; N] {
    fn add_to<'a>(&'a self, name: &str, state: StateDict<'a>) -> Result<StateDict<'a>> {
        T::add_all_to(self, &[N], name, state)
    }

    fn add_to_mut<'a>(&'a mut self, name: &str, state: StateDictMut<'a>) -> Result<StateDictMut<'a>> {
        T::add_all_to_mut(self, &[N], name, state)
    }

    fn add_all_to<'a>(
        items: &'a [Self],
        shape: &[usize],
        name: &str,
        state: StateDict<'a>,
    ) -> Result<StateDict<'a>> {
        T::add_all_to(items.as_flattened(), &[shape, &[N]].concat(), name, state)
    }

    fn add_all_to_mut<'a>(
        items: &'a mut [Self],
        shape: &[usize],
        name: &str,
        state: StateDictMut<'a>,
    ) -> Result<StateDictMut<'a>> {
        T::add_all_to_mut(items.as_flattened_mut(), &[shape, &[N]].concat(), name, state)
    }
}

impl<T: StateField> StateField for Option<T> {
    fn add_to<'a>(&'a self, name: &str, state: StateDict<'a>) -> Result<StateDict<'a>> {
        match self {
            Some(field) => field.add_to(name, state),
            None => Ok(state),
        }
    }

    fn add_to_mut<'a>(&'a mut self, name: &str, state: StateDictMut<'a>) -> Result<StateDictMut<'a>> {
        match self {
            Some(field) => field.add_to_mut(name, state),
            None => Ok(state),
        }
    }
}

impl<T: StateField> StateField for BTreeMap<String, T> {
    fn add_to<'a>(&'a self, name: &str, state: StateDict<'a>) -> Result<StateDict<'a>> {
        self.iter().try_fold(state, |state, (key, field)| field.add_to(&joined(name, key), state))
    }

    fn add_to_mut<'a>(&'a mut self, name: &str, state: StateDictMut<'a>) -> Result<StateDictMut<'a>> {
        self.iter_mut().try_fold(state, |state, (key, field)| field.add_to_mut(&joined(name, key), state))
    }
}

/// No tensors, so that a type parameter may be a marker.
impl<T: ?Sized> StateField for PhantomData<T> {
    fn add_to<'a>(&'a self, _: &str, state: StateDict<'a>) -> Result<StateDict<'a>> {
        Ok(state)
    }

    fn add_to_mut<'a>(&'a mut self, _: &str, state: StateDictMut<'a>) -> Result<StateDictMut<'a>> {
        Ok(state)
    }
}

macro_rules! tuples {
    ($($($number:tt $type:ident),+;)*) => {
        $(impl<$($type: StateField),+> StateField for ($($type,)+) {
            fn add_to<'a>(&'a self, name: &str, mut state: StateDict<'a>) -> Result<StateDict<'a>> {
                $(state = self.$number.add_to(&joined(name, stringify!($number)), state)?;)+
                Ok(state)
            }

            fn add_to_mut<'a>(&'a mut self, name: &str, mut state: StateDictMut<'a>) -> Result<StateDictMut<'a>> {
                $(state = self.$number.add_to_mut(&joined(name, stringify!($number)), state)?;)+
                Ok(state)
            }
        })*
    };
}

tuples! {
    0 A;
    0 A, 1 B;
    0 A, 1 B, 2 C;
    0 A, 1 B, 2 C, 3 D;
}

/// In any memory order, as [`StateDict::with`] and [`StateDictMut::with`] take it.
#[cfg(feature = "ndarray")]
impl<S, T, D> StateField for ndarray::ArrayBase<S, D>
where
    S: ndarray::DataMut<Elem = T>,
    T: crate::dtype::Element + bytemuck::AnyBitPattern,
    D: ndarray::Dimension,
{
    fn add_to<'a>(&'a self, name: &str, state: StateDict<'a>) -> Result<StateDict<'a>> {
        state.with(own(name)?, self)
    }

    fn add_to_mut<'a>(&'a mut self, name: &str, state: StateDictMut<'a>) -> Result<StateDictMut<'a>> {
        state.with(own(name)?, self)
    }
}

/// A box of a module, also of a trait object, is that module.
impl<T: Stateful + ?Sized> Stateful for Box<T> {
    fn state_dict(&self) -> Result<StateDict<'_>> {
        (**self).state_dict()
    }

    fn state_dict_mut(&mut self) -> Result<StateDictMut<'_>> {
        (**self).state_dict_mut()
    }
}
