//! Names for a checkpoint, made of the names in a foreign file: valid and unique.

use super::{Foreign, Note};
use crate::format::limits::Limits;
use crate::format::table::check_name;
use std::collections::{HashMap, HashSet};

/// A valid name for a checkpoint: no control characters, not empty, not too long.
pub fn valid_name(name: &str) -> String {
    if check_name(name).is_ok() {
        return name.to_owned();
    }
    let clean: String = name.chars().map(|c| if c.is_control() { '_' } else { c }).take(200).collect();
    if check_name(&clean).is_ok() { clean } else { "unnamed".to_owned() }
}

/// A set of unique names.
#[derive(Debug, Default)]
pub struct Names {
    taken: HashSet<String>,
    /// The number to try next after a taken name, so that many equal names take linear time.
    next: HashMap<String, u64>,
}

impl Names {
    /// Takes a name if it is free.
    pub fn take(&mut self, name: &str) -> bool {
        !self.taken.contains(name) && self.taken.insert(name.to_owned())
    }

    /// The name itself if it is free, else `name~2` and so on.
    pub fn free(&mut self, name: &str) -> String {
        if self.take(name) {
            return name.to_owned();
        }
        let stem = shortened(name);
        let mut number = self.next.get(stem).copied().unwrap_or(2);
        loop {
            let name = format!("{stem}~{number}");
            number += 1;
            if self.take(&name) {
                self.next.insert(stem.to_owned(), number);
                return name;
            }
        }
    }
}

/// The start of a name, with room for a number after it.
fn shortened(name: &str) -> &str {
    const NUMBER: usize = "~18446744073709551615".len();
    let mut end = name.len().min(Limits::V1.name_bytes as usize - NUMBER);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

impl Foreign {
    /// Gives each tensor a valid, unique name, and notes the changes. The first tensor with a valid
    /// name keeps it, even if other names clash. Ties, which are by index until here, get their
    /// names.
    pub(super) fn tidy_names(&mut self) {
        let mut names = Names::default();
        let clashing: Vec<usize> = (0..self.tensors.len())
            .filter(|&index| {
                let name = &self.tensors[index].name;
                check_name(name).is_err() || !names.take(name)
            })
            .collect();
        for index in clashing {
            let tensor = &mut self.tensors[index];
            let name = names.free(&valid_name(&tensor.name));
            let old = std::mem::replace(&mut tensor.name, name.clone());
            self.notes.push(Note::kept(name, format!("renamed from {old:?}: not a name, or taken")));
        }
        for index in 0..self.tensors.len() {
            let first = self.tensors[index].alias_index;
            self.tensors[index].alias_of = first.map(|first| self.tensors[first].name.clone());
        }
        let numbered = self.tensors.iter().enumerate();
        self.by_name = numbered.map(|(index, tensor)| (tensor.name.clone(), index)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_clash_get_numbers_and_fit_the_limit() {
        let mut names = Names::default();
        let given: Vec<String> = ["a", "a~2", "a", "a", "a~2"].map(|name| names.free(name)).into();
        assert_eq!(given, ["a", "a~2", "a~3", "a~4", "a~2~2"]);
        let long = "ß".repeat(512);
        assert_eq!(names.free(&long), long);
        let second = names.free(&long);
        assert!(second.ends_with("ß~2") && check_name(&second).is_ok(), "{second}");
    }

    #[test]
    fn a_hundred_thousand_equal_names_take_linear_time() {
        let mut names = Names::default();
        let start = std::time::Instant::now();
        for _ in 0..100_000 {
            names.free("a");
        }
        assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    }
}
