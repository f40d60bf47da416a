//! Which files of a crate use which: their imports and paths, followed through re-exports to the
//! file that defines the name.

use std::collections::{BTreeMap, BTreeSet};

/// A module by its path in the crate: `["store", "tiers"]`; the crate's root is empty.
pub type Module = Vec<String>;

/// The modules of a crate, and the paths that each names.
pub struct Graph {
    named: BTreeMap<Module, Vec<Vec<String>>>,
    imported: BTreeMap<Module, BTreeMap<String, Vec<String>>>,
}

impl Graph {
    /// Of files, by their names under `src/`, each with its code.
    pub fn new<'f>(files: impl IntoIterator<Item = (&'f str, String)>) -> Self {
        let module = |file: &str| -> Module {
            let file = file.trim_end_matches(".rs");
            let names = if ["lib", "main"].contains(&file) { "" } else { file };
            names.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let code: BTreeMap<Module, String> =
            files.into_iter().map(|(file, code)| (module(file), code)).collect();
        let (mut named, mut imported) = (BTreeMap::new(), BTreeMap::new());
        for (own, text) in &code {
            let (uses, body) = split_uses(text);
            let uses: Vec<Vec<String>> = uses.iter().flat_map(|tree| expand(tree)).collect();
            let bindings = uses.iter().filter_map(|path| Some((path.last()?.clone(), path.clone())));
            imported.insert(own.clone(), bindings.collect::<BTreeMap<_, _>>());
            named.insert(own.clone(), uses.into_iter().chain(paths(&body)).collect());
        }
        Self { named, imported }
    }

    fn is_module(&self, module: &[String]) -> bool {
        self.named.contains_key(module)
    }

    /// The module that a path begins in, and the rest of it; None for a path to elsewhere.
    fn begin<'p>(&self, own: &[String], path: &'p [String]) -> Option<(Module, &'p [String])> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some((vec![], rest)),
            "self" => Some((own.to_vec(), rest)),
            "super" => {
                let up = path.iter().take_while(|name| *name == "super").count();
                Some((own[..own.len().checked_sub(up)?].to_vec(), &path[up..]))
            }
            child => {
                let child = [own, &[child.to_owned()]].concat();
                self.is_module(&child).then(|| (own.to_vec(), path))
            }
        }
    }

    /// The module whose file defines what the path names.
    fn definer(&self, own: &[String], path: &[String], depth: usize) -> Option<Module> {
        let (mut at, mut rest) = self.begin(own, path)?;
        while let Some((name, further)) = rest.split_first() {
            let child = [&at[..], std::slice::from_ref(name)].concat();
            if !self.is_module(&child) {
                break;
            }
            (at, rest) = (child, further);
        }
        let imported = rest.first().and_then(|name| self.imported.get(&at)?.get(name));
        match imported.filter(|_| depth > 0) {
            Some(path) => {
                let further = [&path[..], &rest[1..]].concat();
                self.definer(&at, &further, depth - 1).or(Some(at))
            }
            None => self.is_module(&at).then_some(at),
        }
    }

    /// Which modules of one folder use which others of it, files below them included. A module and
    /// those in its own folder may use each other: it is their façade, or has what they share.
    pub fn siblings(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let mut uses: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for (own, paths) in &self.named {
            for other in paths.iter().filter_map(|path| self.definer(own, path, 8)) {
                let common = own.iter().zip(&other).take_while(|(a, b)| a == b).count();
                if common < own.len() && common < other.len() {
                    uses.entry(own[..=common].to_vec()).or_default().insert(other[..=common].to_vec());
                }
            }
        }
        uses
    }
}

/// A way from a module back to itself, if there is one.
pub fn circle(uses: &BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<Module>> {
    fn walk<'u>(
        uses: &'u BTreeMap<Module, BTreeSet<Module>>,
        way: &mut Vec<&'u Module>,
        done: &mut BTreeSet<&'u Module>,
    ) -> Option<Vec<Module>> {
        for next in uses.get(*way.last()?).into_iter().flatten() {
            if let Some(start) = way.iter().position(|module| *module == next) {
                return Some(way[start..].iter().map(|module| (*module).clone()).collect());
            }
            if !done.contains(next) {
                way.push(next);
                let found = walk(uses, way, done);
                if found.is_some() {
                    return found;
                }
                way.pop();
            }
        }
        done.extend(way.last());
        None
    }
    let mut done = BTreeSet::new();
    uses.keys().find_map(|module| walk(uses, &mut vec![module], &mut done))
}

/// The trees of all `use` items, and the rest of the code.
fn split_uses(code: &str) -> (Vec<String>, String) {
    let (mut trees, mut body) = (Vec::new(), String::new());
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let begins = rest[..at].chars().next_back().is_none_or(|before| before.is_whitespace());
        match rest[at..].find(';').filter(|_| begins) {
            Some(end) => {
                body.push_str(&rest[..at]);
                trees.push(rest[at + 4..at + end].to_owned());
                rest = &rest[at + end + 1..];
            }
            None => {
                body.push_str(&rest[..at + 4]);
                rest = &rest[at + 4..];
            }
        }
    }
    body.push_str(rest);
    (trees, body)
}

/// The paths of one tree: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(tree: &str) -> Vec<Vec<String>> {
    let Some((before, inner)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        let names = path.split("::").map(str::trim).filter(|name| !name.is_empty());
        return vec![names.map(str::to_owned).collect()];
    };
    let inner = inner.rsplit_once('}').map_or(inner, |(inner, _)| inner);
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, character) in inner.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    let parts = parts.into_iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| expand(&format!("{before}{part}"))).collect()
}

/// The paths in code outside of `use` items, as far as they have two names or more.
fn paths(code: &str) -> Vec<Vec<String>> {
    let is_of_path = |character: char| character.is_alphanumeric() || "_:".contains(character);
    let words = code.split(|character| !is_of_path(character)).filter(|word| word.contains("::"));
    let names = |word: &str| word.split("::").map(str::to_owned).collect::<Vec<String>>();
    words.map(names).filter(|path| !path[0].is_empty() && !path[0].starts_with(char::is_uppercase)).collect()
}
