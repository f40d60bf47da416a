//! Compares the compiler's messages for wrong derives word for word: they have to say what to do.
//!
//! `TRYBUILD=overwrite` writes the current messages, to be read before they are committed. The
//! compiler's own words change with its version, so cases that contain some are compared only on
//! the version they were written with.

#[test]
fn errors_of_attributes_name_the_right_form() {
    trybuild::TestCases::new().compile_fail("tests/ui/attributes/*.rs");
}

#[test]
fn the_error_of_a_field_without_tensors_helps() {
    trybuild::TestCases::new().compile_fail("tests/ui/fields/*.rs");
}
