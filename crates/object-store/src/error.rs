//! Errors of stores as errors of this library: named after the object, with what to do about the well-known causes.
//! Knows the words of S3, Google and Azure, and no request.

use object_store::Error as StoreError;
use std::error::Error as _;
use tensorkeep::{Error, ErrorKind};

/// What a store's words mean to the person who reads them: (one of these words, what to do).
const CAUSES: &[(&[&str], &str)] = &[
    // First: without credentials the machine's own are asked for, and whatever goes wrong there says "403" or the like.
    (
        &["latest/api/token", "169.254.169.254", "metadata.google.internal"],
        "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or what your store uses)",
    ),
    (
        &["RequestTimeTooSkewed", "Request date header too old", "time too skewed"],
        "this machine's clock is wrong: the store refuses signatures that are minutes off; set the clock (NTP)",
    ),
    (NO_BUCKET, "there is no such bucket: create it, or correct the URL and the region"),
    (
        &["NoSuchUpload"],
        "the upload was ended by the store: is there a life cycle rule that ends uploads after a short time?",
    ),
    (
        &["InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthenticationFailed", "InvalidToken"],
        "the credentials are wrong: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or what your store uses)",
    ),
    (&["ExpiredToken", "TokenRefreshRequired"], "the session's credentials have expired: renew them"),
    (&["AccessDenied", "403 Forbidden", "AuthorizationPermissionMismatch"], NO_RIGHTS),
    (
        &["without LOCATION", "PermanentRedirect", "AuthorizationHeaderMalformed"],
        "the bucket is in another region: set AWS_REGION",
    ),
    (
        &["URL scheme is not allowed", "BadScheme"],
        "the endpoint is http and not https: set AWS_ALLOW_HTTP=true if that is meant",
    ),
    (
        &["Connection refused", "dns error", "error trying to connect", "tcp connect error"],
        "the store cannot be reached: check the endpoint (AWS_ENDPOINT_URL) and the network",
    ),
    (
        &["SlowDown", "503", "TooManyRequests", "429"],
        "the store is overloaded and all retries are used up; try again later",
    ),
];

const NO_BUCKET: &[&str] = &["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"];

const NO_RIGHTS: &str =
    "the credentials do not allow this: reading, writing, listing and deleting are needed";

/// A store's error under the name of its object.
pub(crate) fn explain(what: &'static str, object: &str, error: StoreError) -> Error {
    let words = chain(&error);
    let kind = match &error {
        // Not the object is missing but what was uploaded of it: a new upload can succeed.
        StoreError::NotFound { .. } if words.contains("NoSuchUpload") => ErrorKind::Io,
        StoreError::NotFound { .. } => ErrorKind::NotFound,
        _ if NO_BUCKET.iter().any(|sign| words.contains(sign)) => ErrorKind::NotFound,
        StoreError::AlreadyExists { .. } => ErrorKind::AlreadyExists,
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => ErrorKind::Unsupported,
        StoreError::InvalidPath { .. } | StoreError::UnknownConfigurationKey { .. } => ErrorKind::Invalid,
        _ => ErrorKind::Io,
    };
    let known = CAUSES.iter().find(|(signs, _)| signs.iter().any(|sign| words.contains(sign)));
    let help = known.map(|(_, help)| *help).or(match &error {
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => Some(NO_RIGHTS),
        _ => None,
    });
    let explained = Error::new(kind, what).in_object(object);
    match help {
        Some(help) => explained.help(help),
        None => explained,
    }
    .because(error)
}

/// Whether the store said no before it did anything: then nothing of the request can show up later.
pub(crate) fn is_refusal(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::PermissionDenied { .. }
            | StoreError::Unauthenticated { .. }
            | StoreError::NotFound { .. }
            | StoreError::NotSupported { .. }
            | StoreError::NotImplemented { .. }
            | StoreError::InvalidPath { .. }
            | StoreError::UnknownConfigurationKey { .. }
    )
}

/// The messages of an error and all its causes.
fn chain(error: &StoreError) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words += &format!("\n{cause}");
        source = cause.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_well_known_cause_is_told_with_what_to_do() {
        let cases = [
            ("<Code>RequestTimeTooSkewed</Code>", "clock"),
            ("<Code>NoSuchBucket</Code>", "create it"),
            ("<Code>SignatureDoesNotMatch</Code>", "AWS_SECRET_ACCESS_KEY"),
            ("<Code>ExpiredToken</Code>", "renew"),
            ("<Code>AccessDenied</Code>", "do not allow"),
            ("tcp connect error: Connection refused", "endpoint"),
            ("PUT http://169.254.169.254/latest/api/token - 403 Forbidden", "no credentials were found"),
        ];
        for (words, help) in cases {
            let error = StoreError::Generic { store: "S3", source: words.into() };
            let error = explain("writing", "s3://bucket/run/a", error);
            let text = error.to_string();
            assert!(text.starts_with("s3://bucket/run/a: writing") && text.contains(help), "{text}");
        }
    }
}
