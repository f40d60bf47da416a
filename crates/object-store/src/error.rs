//! Errors of stores as errors of this library: named after the object, with help for well-known
//! causes, and without passwords. Here are the error texts of S3, Google and Azure.

use crate::secrets::clean;
use object_store::Error as StoreError;
use std::fmt;
use std::time::Duration;
use tensorkeep::{Error, ErrorKind};

/// Well-known causes of a store's errors: (any of these words, help).
const CAUSES: &[(&[&str], &str)] = &[
    // First: without credentials the machine's own are requested, and any failure there mentions
    // "403" or the like.
    (
        METADATA,
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
        "the store cannot be reached: check the endpoint (AWS_ENDPOINT_URL, AZURE_ENDPOINT) and the network",
    ),
    (
        &["SlowDown", "status code: 503", "TooManyRequests", "status code: 429"],
        "the store is overloaded, and the call's time is used up; try again later",
    ),
    (
        &["status code: 507", "InsufficientStorage", "QuotaExceeded"],
        "the store is full: delete something, or raise the quota",
    ),
    (
        &["no answer within"],
        "the store accepts requests and does not answer: check the endpoint and the network; with_deadline says how long to try",
    ),
];

/// Marks of the machine's metadata service, which only clouds have.
const METADATA: &[&str] = &["latest/api/token", "169.254.169.254", "metadata.google.internal"];
/// Time limit for that service, on machines that may well have none.
const METADATA_TIME: Duration = Duration::from_secs(10);

const NO_BUCKET: &[&str] = &["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"];

const NO_RIGHTS: &str =
    "the credentials do not allow this: reading, writing, listing and deleting are needed";

/// A store's error under the name of its object.
pub(crate) fn explain(what: &'static str, object: &str, error: StoreError) -> Error {
    let words = chain(&error);
    let kind = match &error {
        // The upload's parts are missing, not the object: a new upload can succeed.
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
    .because(Told::of(&error))
}

/// A store's error and its causes as displayed: passwords in URLs are masked, which stores repeat
/// in every message.
#[derive(Debug)]
struct Told {
    text: String,
    source: Option<Box<Self>>,
}

impl Told {
    fn of(error: &dyn std::error::Error) -> Self {
        let text = error.to_string();
        // Many errors of stores repeat their causes.
        let mut source = error.source();
        while let Some(cause) = source.filter(|cause| text.contains(&cause.to_string())) {
            source = cause.source();
        }
        Self { text: clean(&text), source: source.map(|source| Box::new(Self::of(source))) }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Told {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Whether retrying a request is of no use, after trying for this long.
pub(crate) fn is_final(error: &StoreError, tried: Duration) -> bool {
    let StoreError::Generic { .. } = error else { return true };
    let words = chain(error);
    let has = |signs: &[&str]| signs.iter().any(|sign| words.contains(sign));
    if has(&["URL scheme is not allowed", "BadScheme", "builder error"])
        || (tried > METADATA_TIME && has(METADATA))
    {
        return true;
    }
    is_no(&words)
}

/// Whether a status is a final refusal.
fn is_no(words: &str) -> bool {
    match status(words) {
        // S3 answers 400 to a body that came too slowly.
        Some(400) => !words.contains("RequestTimeout"),
        Some(408 | 409 | 425 | 429) => false,
        Some(status) => (400..500).contains(&status) || matches!(status, 501 | 505 | 507),
        None => false,
    }
}

/// The HTTP status in an error. `object_store` has it in its text only.
fn status(words: &str) -> Option<u16> {
    let (_, after) = words.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}

/// Whether the requested range is outside the object.
pub(crate) fn is_past_the_end(error: &StoreError) -> bool {
    status(&chain(error)) == Some(416)
}

/// Whether the store refused before it did anything: no effect of the request can show up later.
pub(crate) fn is_refusal(error: &StoreError) -> bool {
    match error {
        StoreError::Generic { .. } => is_no(&chain(error)),
        StoreError::PermissionDenied { .. }
        | StoreError::Unauthenticated { .. }
        | StoreError::NotFound { .. }
        | StoreError::NotSupported { .. }
        | StoreError::NotImplemented { .. }
        | StoreError::InvalidPath { .. }
        | StoreError::UnknownConfigurationKey { .. } => true,
        _ => false,
    }
}

/// The messages of an error and all its causes.
fn chain(error: &StoreError) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
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
    fn each_well_known_cause_has_help() {
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

    #[test]
    fn only_transient_errors_are_retried() {
        let generic = |words: &'static str| StoreError::Generic { store: "S3", source: words.into() };
        for words in ["status code: 503 x", "status code: 429 x", "Connection refused", "400: RequestTimeout"]
        {
            assert!(!is_final(&generic(words), Duration::ZERO), "{words}");
        }
        for words in ["status code: 400 x", "status code: 507 x", "URL scheme is not allowed"] {
            assert!(is_final(&generic(words), Duration::ZERO), "{words}");
        }
        let metadata = generic("GET http://169.254.169.254/latest/api/token: timed out");
        assert!(!is_final(&metadata, Duration::ZERO) && is_final(&metadata, Duration::from_secs(11)));
    }
}
