//! What the compiler says of a wrong derive, word for word: the words have to say what to do.
//!
//! `TRYBUILD=overwrite` writes what it says now, for a person to read before it is committed. Words
//! of the compiler change with its version, so the cases that have some are compared on the version
//! they were written with.

#[test]
fn a_wrong_attribute_is_told_what_to_write() {
    trybuild::TestCases::new().compile_fail("tests/ui/attributes/*.rs");
}

#[test]
fn a_field_that_has_no_tensors_is_told_what_to_do() {
    trybuild::TestCases::new().compile_fail("tests/ui/fields/*.rs");
}
