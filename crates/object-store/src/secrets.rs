//! Texts for messages without the secrets in them: URLs that people write, and what stores answer,
//! which repeat the requests that they refuse.

use std::borrow::Cow;

/// Longest text of a store in an error; its answers may have any length.
const LONGEST_TEXT: usize = 4096;

/// Ends of the names before values that are secrets, in headers, queries, XML and JSON: in lower
/// case, without dashes and underscores.
const SECRETS: [&str; 12] = [
    "securitytoken",
    "sessiontoken",
    "accesstoken",
    "refreshtoken",
    "idtoken",
    "sig",
    "signature",
    "secret",
    "secretaccesskey",
    "accountkey",
    "password",
    "authorization",
];

/// Words before a secret in the value of an authorization.
const SCHEMES: [&str; 2] = ["Bearer ", "Basic "];

/// A text of a store, cut and without secrets.
pub(crate) fn clean(text: &str) -> String {
    // Masked before it is cut: the end of a secret shows that it is one.
    let masked = mask_values(&mask(text));
    match masked.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => masked[..end].to_owned(),
        None => masked,
    }
}

/// A text with the values replaced that follow on a name of [`SECRETS`] and `:`, `=`, `>` or one of
/// them percent-encoded.
fn mask_values(text: &str) -> String {
    let (mut masked, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find([':', '=', '>', '%']) {
        let (before, after) = rest.split_at(at);
        let encoded = ["%3A", "%3D", "%3a", "%3d"].iter().find(|code| after.starts_with(**code));
        let (separator, value) = after.split_at(encoded.map_or(1, |code| code.len()));
        masked = masked + before + separator;
        rest = value;
        if (encoded.is_none() && separator == "%") || !is_secret(before) {
            continue;
        }
        let value = value.trim_start_matches([' ', '"', '\'']);
        let value = SCHEMES.iter().find_map(|scheme| value.strip_prefix(scheme)).unwrap_or(value);
        masked += &rest[..rest.len() - value.len()];
        let len = value.find(|c: char| c.is_whitespace() || "&<\"'".contains(c)).unwrap_or(value.len());
        masked += if len > 0 { "***" } else { "" };
        rest = &value[len..];
    }
    masked + rest
}

/// Whether a text ends in the name of a secret.
fn is_secret(text: &str) -> bool {
    let text = text.trim_end_matches([' ', '"', '\'']);
    let name = text.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').next();
    let name = name.unwrap_or_default().replace(['-', '_'], "").to_ascii_lowercase();
    SECRETS.iter().any(|secret| name.ends_with(secret))
}

/// A text with the user names and passwords in its URLs replaced.
pub(crate) fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        masked += before;
        let end = after.find(|c: char| c.is_whitespace() || "/?#\"'<>".contains(c)).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(at) => {
                masked += "***";
                &after[at..]
            }
            None => after,
        };
    }
    masked + rest
}

/// A URL for messages, without the parts that may be secret: a user and password, also where they
/// are percent-encoded, a query, a fragment.
pub(crate) fn masked(url: &str) -> Cow<'_, str> {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None => ("", url),
    };
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let bucket = rest[..end].split('/').next().unwrap_or("");
    // A secret may contain slashes, so the mask extends to the last @.
    let hides = bucket.contains(['@', ':', '%']);
    let begin = if hides { rest[..end].rfind('@').unwrap_or(bucket.len()) } else { 0 };
    let is_abfs = scheme.starts_with("abfs") && !bucket.contains([':', '%']);
    if end == rest.len() && (begin == 0 || is_abfs) {
        return Cow::Borrowed(url);
    }
    let scheme = &url[..url.len() - rest.len()];
    let hidden = if begin > 0 && !is_abfs { "***" } else { "" };
    let shown = if is_abfs { &rest[..end] } else { &rest[begin..end] };
    let cut = if end < rest.len() { "?***" } else { "" };
    Cow::Owned(format!("{scheme}{hidden}{shown}{cut}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn possible_secrets_are_masked() {
        for (url, shown) in [
            ("s3://bucket/run@1", "s3://bucket/run@1"),
            ("s3://key:se/cr@et@bucket/run", "s3://***@bucket/run"),
            ("s3://key:secret/run", "s3://***/run"),
            ("s3://key%3Asecret%40bucket/run", "s3://***/run"),
            ("abfs://key%3asecret%40c@a.net/run", "abfs://***@a.net/run"),
            ("s3://bucket/run?a=b#c", "s3://bucket/run?***"),
            ("abfs://c@a.net/run", "abfs://c@a.net/run"),
            ("abfs://c:secret@a.net/run#x", "abfs://***@a.net/run?***"),
            ("user:secret@host/x?y", "***@host/x?***"),
        ] {
            assert_eq!(masked(url), shown);
        }
    }

    #[test]
    fn passwords_in_urls_are_masked_and_nothing_else() {
        for (text, masked) in [
            ("GET http://user:pa@ss@host/a@b in 3 s", "GET http://***@host/a@b in 3 s"),
            (
                "two: https://token@host?x, \"s3://bucket/a@b\"",
                "two: https://***@host?x, \"s3://bucket/a@b\"",
            ),
            ("no URL: a@b", "no URL: a@b"),
            ("://@", "://***@"),
        ] {
            assert_eq!(mask(text), masked);
        }
    }

    #[test]
    fn secrets_that_a_store_repeats_are_masked() {
        for (text, cleaned) in [
            ("x-amz-security-token:SECRET\nhost:h", "x-amz-security-token:***\nhost:h"),
            ("?X-Amz-Security-Token=SECRET&a=b", "?X-Amz-Security-Token=***&a=b"),
            ("<Security-Token>SECRET</Security-Token>", "<Security-Token>***</Security-Token>"),
            ("GET http://h/c?se=1&sig=SECRET%3D in 3 s", "GET http://h/c?se=1&sig=*** in 3 s"),
            ("client_secret: \"SECRET\"", "client_secret: \"***\""),
            ("{\"client_secret\": \"SECRET\"}", "{\"client_secret\": \"***\"}"),
            ("{\"access_token\":\"SECRET\",\"x\":1}", "{\"access_token\":\"***\",\"x\":1}"),
            ("<SecretAccessKey>SECRET</SecretAccessKey>", "<SecretAccessKey>***</SecretAccessKey>"),
            ("to=x%3FX-Amz-Signature%3DSECRET", "to=x%3FX-Amz-Signature%3D***"),
            ("Authorization: Bearer SECRET\nx", "Authorization: Bearer ***\nx"),
            ("SignatureDoesNotMatch: signature", "SignatureDoesNotMatch: signature"),
            ("config: 100%", "config: 100%"),
            ("sig", "sig"),
            ("sig=", "sig="),
        ] {
            assert_eq!(clean(text), cleaned);
        }
        assert_eq!(clean(&"ü".repeat(10_000)).chars().count(), LONGEST_TEXT);
    }

    #[test]
    fn a_secret_at_the_end_of_a_long_text_is_masked() {
        for cut in 0..30 {
            let text = "x".repeat(LONGEST_TEXT - cut) + " http://user:SECRET@host/";
            assert!(!clean(&text).contains('S'), "{cut}");
        }
    }
}
