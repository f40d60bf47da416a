//! The forms of the settings of a store that users give, by options and environment variables:
//! `object_store` panics, possibly in the middle of training, on values that cannot stand in a
//! header or a URL.
#![cfg_attr(not(any(feature = "aws", feature = "gcp", feature = "azure")), allow(dead_code))]

use crate::secrets::masked;
use std::net::Ipv6Addr;
use tensorkeep::{Error, ErrorKind, Result};

/// What a setting must be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// Text that may stand in a header.
    Line,
    /// Printable ASCII without spaces: keys, tokens, and names within a URL.
    Word,
    /// The URL of a server.
    Endpoint,
}

impl Form {
    /// # Errors
    /// `Invalid`, which does not repeat a value that may be secret.
    pub(crate) fn check(self, key: &str, value: &str) -> Result<()> {
        match self {
            Self::Line if value.chars().any(char::is_control) => Err(invalid(key)
                .expected("one line of text")
                .found("a line break or another control character")
                .help(LOOK)),
            // Secrets of Kubernetes often end in a newline.
            Self::Word | Self::Endpoint if !value.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err(invalid(key)
                    .expected("printable ASCII characters without spaces")
                    .found("a space, a line break or another character")
                    .help(LOOK))
            }
            Self::Endpoint if !is_url_of_server(value) => Err(invalid(key)
                .expected("the URL of a server, such as http://localhost:9000")
                .found(if value.contains(['@', '%', '?', '#']) { masked(value) } else { value.into() })
                .help("unset it for the provider's own endpoint")),
            _ => Ok(()),
        }
    }
}

const LOOK: &str = "look for a line break at the end of the environment variable or the secret";

fn invalid(key: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("option {key} of the store"))
}

fn is_url_of_server(value: &str) -> bool {
    let rest = value.strip_prefix("http://").or_else(|| value.strip_prefix("https://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    let server = authority.rsplit_once('@').map_or(authority, |(_, server)| server);
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().is_ok()),
        _ => (server, true),
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    port && match address {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => is_plain(host),
    }
}

/// Whether this can be the name of a bucket, an account or a server.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_of_servers() {
        for endpoint in [
            "http://localhost",
            "https://u:p@host:9000/path",
            "http://[::1]:9000",
            "http://[::1]",
            "http://h/",
        ] {
            Form::Endpoint.check("endpoint", endpoint).unwrap();
        }
        for endpoint in [
            "",
            "minio",
            "localhost:9000",
            "127.0.0.1:1",
            "http://",
            "http://:80",
            "http://h:99999",
            "ftp://h",
            "http://[::1",
            "http://[host]",
            "http://%zz",
            "https://h\\x",
        ] {
            let error = Form::Endpoint.check("endpoint", endpoint).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{endpoint}");
        }
    }
}
