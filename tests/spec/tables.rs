//! The tables of SPEC.md against the constants of the code.

use super::table;
use tensorkeep::{Dtype, inspect::Limits, inspect::RESERVED_PREFIX};
use test_support::build::{self, Columns, Container};

fn column(name: &str, cell: usize) -> Vec<String> {
    table(name).into_iter().map(|mut row| row.swap_remove(cell)).collect()
}

/// Name, first byte, one past the last.
type Layout = Vec<(String, usize, usize)>;

fn documented(name: &str) -> Layout {
    let number = |cell: &str| cell.parse::<usize>().unwrap();
    let rows = table(name).into_iter();
    rows.map(|row| (row[2].clone(), number(&row[0]), number(&row[0]) + number(&row[1]))).collect()
}

#[test]
fn every_byte_of_a_layout_is_in_one_field() {
    for (name, len) in [
        ("layout: header", 4096),
        ("layout: footer", 128),
        ("layout: preamble", 32),
        ("layout: section", 32),
        ("layout: plane header", 5),
    ] {
        let mut at = 0;
        for (field, start, end) in documented(name) {
            assert_eq!(start, at, "{name}: {field}");
            at = end;
        }
        assert_eq!(at, len, "{name}");
    }
}

#[test]
#[cfg(feature = "testing")]
fn the_layouts_are_those_of_the_code() {
    // The code's names differ where a constant of that name exists already.
    macro_rules! fields {
        ($fields:expr) => {
            $fields.iter().map(|field| {
                let name = field.name.to_lowercase();
                (name.strip_suffix("_field").unwrap_or(&name).to_owned(), field.start, field.end)
            })
        };
    }
    use tensorkeep::spec::{FOOTER, HEADER, PREAMBLE, SECTION};
    assert_eq!(documented("layout: header"), fields!(HEADER).collect::<Layout>());
    assert_eq!(documented("layout: footer"), fields!(FOOTER).collect::<Layout>());
    assert_eq!(documented("layout: preamble"), fields!(PREAMBLE).collect::<Layout>());
    assert_eq!(documented("layout: section"), fields!(SECTION).collect::<Layout>());
}

#[test]
fn limits_and_dtypes_are_those_of_the_code() {
    // [R99]
    let limits: Vec<(String, u64)> =
        table("table: limits").into_iter().map(|row| (row[0].clone(), row[1].parse().unwrap())).collect();
    assert_eq!(limits, Limits::V1.named().map(|(name, number)| (name.to_owned(), number)));
    // [R71]
    let dtypes: Vec<[String; 3]> = table("table: dtypes")
        .into_iter()
        .map(|row| [row[0].clone(), row[1].clone(), row[2].clone()])
        .collect();
    let in_code: Vec<[String; 3]> = Dtype::ALL
        .iter()
        .map(|dtype| [dtype.id().to_string(), dtype.name().to_owned(), dtype.bits().to_string()])
        .collect();
    assert_eq!(dtypes, in_code);
    let built: Vec<[String; 3]> = build::DTYPES
        .iter()
        .map(|(name, id, size)| [id.to_string(), (*name).to_owned(), (size * 8).to_string()])
        .collect();
    assert_eq!(dtypes, built);
}

#[test]
fn ids_and_columns_are_those_that_the_tests_build_with() {
    assert_eq!(column("table: kinds", 0), ["1", "2", "3", "5", "6"]);
    assert_eq!(column("table: codecs", 1), ["raw", "zstd", "fill", "float-planes"]);
    assert_eq!(column("table: codecs", 0), ["0", "1", "2", "4"]);
    assert_eq!(column("table: filters", 1), ["none", "planes"]);
    assert_eq!(column("table: filters", 0), ["0", "1"]);
    let names = |columns: Columns| columns.0.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(column("table: columns", 0), names(Columns::table()));
    assert_eq!(column("table: aliases", 0), names(Columns::aliases(&[], &[], &[])));
    assert_eq!(column("table: pieces", 0), names(build::Manifest::new("s").0));
    assert_eq!(column("table: shard", 0), names(build::shard(&mut Container::new(), "s", [0, 1], &[])));
    let flags: Vec<[String; 2]> =
        table("table: flags").into_iter().map(|row| [row[0].clone(), row[1].clone()]).collect();
    assert_eq!(flags, [["incompat_flags", "1"], ["ro_compat_flags", "0"]]);
    let reserved = column("table: reserved", 0);
    assert!(reserved.iter().all(|name| name.starts_with(RESERVED_PREFIX)), "{reserved:?}");
}
