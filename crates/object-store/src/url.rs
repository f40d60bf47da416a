//! URLs to stores: schemes, forbidden parts of a URL, and the settings that differ from the
//! `object_store` crate's own.

use crate::error::explain;
use crate::secrets::masked;
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
use crate::settings::Form;
use crate::settings::is_plain;
use crate::strays::Strays;
use object_store::list::PaginatedListStore;
use object_store::memory::InMemory;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{ObjectStore, RetryConfig};
use std::sync::Arc;
use tensorkeep::{Error, ErrorKind, Result};

/// A place as written in a URL: `scheme://bucket/prefix`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place<'u> {
    pub scheme: &'u str,
    pub bucket: &'u str,
    /// Verbatim from the URL, as other programs name it, too.
    pub prefix: Path,
}

impl<'u> Place<'u> {
    pub(crate) fn parse(url: &'u str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| unknown(url, "no scheme"))?;
        if scheme == "file" {
            return Err(Error::new(ErrorKind::Unsupported, "a folder is not an object store")
                .in_object(masked(url))
                .help("use tensorkeep_object_store::open_url, which opens it by tensorkeep::engine::Local"));
        }
        if !["memory", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss"].contains(&scheme) {
            return Err(unknown(url, "an unknown scheme"));
        }
        if rest.contains(['?', '#']) {
            return Err(credentials_elsewhere(url, "a query or a fragment, such as that of a presigned URL"));
        }
        let (bucket, prefix) = match scheme {
            "memory" => ("", rest),
            _ => rest.split_once('/').unwrap_or((rest, "")),
        };
        if scheme != "memory" {
            check_bucket(url, scheme, bucket)?;
        }
        Ok(Self {
            scheme,
            bucket,
            prefix: parse_prefix(prefix).map_err(|error| error.in_object(masked(url)))?,
        })
    }
}

fn check_bucket(url: &str, scheme: &str, bucket: &str) -> Result<()> {
    match (scheme, bucket.split_once('@')) {
        // abfs://container@account.dfs.core.windows.net: the part before @ is no user.
        ("abfs" | "abfss", Some((container, account))) if is_plain(container) && is_plain(account) => Ok(()),
        _ if bucket.contains(['@', ':']) => Err(credentials_elsewhere(url, "credentials before the bucket")),
        _ if bucket.is_empty() => Err(unknown(url, "no bucket")),
        _ if !is_plain(bucket) => {
            Err(unknown(url, "a bucket with other characters than letters, digits, dot, dash and underscore"))
        }
        _ => Ok(()),
    }
}

/// A prefix, without one slash at its end.
///
/// # Errors
/// `Invalid` for a prefix under which no object of this crate can lie.
pub(crate) fn parse_prefix(prefix: &str) -> Result<Path> {
    let path = if prefix.starts_with('/') { None } else { Path::parse(prefix).ok() };
    path.ok_or_else(|| {
        Error::new(ErrorKind::Invalid, format!("prefix {prefix:?}"))
            .expected("segments between single slashes, none of them `.` or `..`, without control characters")
    })
}

fn unknown(url: &str, found: &'static str) -> Error {
    Error::new(ErrorKind::Invalid, "no URL of an object store")
        .in_object(masked(url))
        .expected("s3://bucket/run, gs://bucket/run, az://container/run or memory://")
        .found(found)
}

fn credentials_elsewhere(url: &str, found: &'static str) -> Error {
    unknown(url, found).help(
        "put credentials into the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
         GOOGLE_APPLICATION_CREDENTIALS, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    )
}

/// Environment variables of a store, in lower case, then the caller's options, which override them.
type Options = Vec<(String, String)>;

fn all_options(variables: &str, options: &[(String, String)]) -> Options {
    let variables = std::env::vars_os().filter_map(|(key, value)| {
        let (key, value) = (key.into_string().ok()?, value.into_string().ok()?);
        key.starts_with(variables).then(|| (key.to_ascii_lowercase(), value))
    });
    let options = options.iter().map(|(key, value)| (key.to_ascii_lowercase(), value.clone()));
    variables.chain(options).collect()
}

/// A store and its optional interfaces: uploads whose parts can be retried, and listings page by
/// page.
pub(crate) struct Opened {
    pub store: Arc<dyn ObjectStore>,
    pub parts: Option<Arc<dyn MultipartStore>>,
    pub pages: Option<Arc<dyn PaginatedListStore>>,
    /// Keys that listings omit.
    pub strays: Strays,
}

impl Opened {
    fn new<S: ObjectStore + MultipartStore + PaginatedListStore>(store: S, strays: Strays) -> Self {
        let store = Arc::new(store);
        let (parts, pages) = (Some(Arc::<S>::clone(&store) as _), Some(Arc::<S>::clone(&store) as _));
        Self { store, parts, pages, strays }
    }

    /// A store without the optional interfaces.
    pub(crate) fn of(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, parts: None, pages: None, strays: Strays::default() }
    }
}

/// The store of a place.
pub(crate) fn store_of(url: &str, place: &Place<'_>, options: &[(String, String)]) -> Result<Opened> {
    let failed = |error| explain("opening the store", url, error);
    let strays = Strays::default();
    match place.scheme {
        "memory" => Ok(Opened::of(Arc::new(InMemory::new()))),
        #[cfg(feature = "aws")]
        "s3" | "s3a" => s3(place, &all_options("AWS_", options), &strays)?
            .build()
            .map(|store| Opened::new(store, strays))
            .map_err(failed),
        #[cfg(feature = "gcp")]
        "gs" => gcs(place, &all_options("GOOGLE_", options), &strays)?
            .build()
            .map(|store| Opened::new(store, strays))
            .map_err(failed),
        #[cfg(feature = "azure")]
        "az" | "azure" | "abfs" | "abfss" => azure(url, place, &all_options("AZURE_", options), &strays)?
            .build()
            .map(|store| Opened::new(store, strays))
            .map_err(failed),
        _ => Err(Error::new(ErrorKind::Unsupported, "this build has no such store")
            .in_object(url)
            .help("build tensorkeep-object-store with the feature aws, gcp or azure")),
    }
}

/// The engine's deadlines cut requests; the crate's limit of 30 s for each fails on slow lines. No
/// setting says "none".
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
const REQUEST_TIMEOUT: &str = "1 day";

/// Settings of all clients that the caller has not built.
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
fn client_defaults(options: &Options) -> Option<object_store::ClientConfigKey> {
    let key = object_store::ClientConfigKey::Timeout;
    (!options.iter().any(|(name, _)| name == key.as_ref())).then_some(key)
}

/// None of the crate's own: the engine retries.
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

#[cfg(feature = "aws")]
fn s3(place: &Place<'_>, options: &Options, strays: &Strays) -> Result<object_store::aws::AmazonS3Builder> {
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key};
    // Single deletes: some S3-compatible stores have no bulk delete, and rotation deletes one by
    // one.
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(place.bucket)
        .with_disable_bulk_delete(true)
        .with_retry(no_retries())
        .with_http_connector(strays.clone());
    if let Some(timeout) = client_defaults(options) {
        builder = builder.with_config(Key::Client(timeout), REQUEST_TIMEOUT);
    }
    for (name, value) in options {
        let Ok(key) = name.parse() else { continue };
        let form = match key {
            Key::Endpoint => Form::Endpoint,
            Key::AccessKeyId | Key::SecretAccessKey | Key::Token => Form::Word,
            Key::Region | Key::DefaultRegion | Key::Bucket => Form::Word,
            _ => Form::Line,
        };
        form.check(name, value)?;
        builder = builder.with_config(key, value);
    }
    Ok(builder)
}

#[cfg(feature = "gcp")]
fn gcs(
    place: &Place<'_>,
    options: &Options,
    strays: &Strays,
) -> Result<object_store::gcp::GoogleCloudStorageBuilder> {
    use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey as Key};
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(place.bucket)
        .with_retry(no_retries())
        .with_http_connector(strays.clone());
    if let Some(timeout) = client_defaults(options) {
        builder = builder.with_config(Key::Client(timeout), REQUEST_TIMEOUT);
    }
    for (name, value) in options {
        let Ok(key) = name.parse() else { continue };
        // The text of a key's file is JSON, which may have lines.
        if !matches!(key, Key::ServiceAccountKey) {
            Form::Line.check(name, value)?;
        }
        builder = builder.with_config(key, value);
    }
    Ok(builder)
}

#[cfg(feature = "azure")]
fn azure(
    url: &str,
    place: &Place<'_>,
    options: &Options,
    strays: &Strays,
) -> Result<object_store::azure::MicrosoftAzureBuilder> {
    use object_store::azure::{AzureConfigKey as Key, MicrosoftAzureBuilder};
    let builder = MicrosoftAzureBuilder::new().with_retry(no_retries()).with_http_connector(strays.clone());
    // abfs://container@account.dfs.core.windows.net/… names the account, too.
    let mut builder = if place.bucket.contains('@') {
        builder.with_url(url)
    } else {
        builder.with_container_name(place.bucket)
    };
    if let Some(timeout) = client_defaults(options) {
        builder = builder.with_config(Key::Client(timeout), REQUEST_TIMEOUT);
    }
    for (name, value) in options {
        let Ok(key) = name.parse() else { continue };
        let form = match key {
            Key::Endpoint => Form::Endpoint,
            Key::AccountName | Key::AccessKey | Key::SasKey | Key::Token | Key::ClientSecret => Form::Word,
            _ => Form::Line,
        };
        form.check(name, value)?;
        builder = builder.with_config(key, value);
    }
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_urls_are_refused_with_the_right_form() {
        let place = Place::parse("s3://bucket/runs/len%20et/").unwrap();
        let prefix = Path::parse("runs/len%20et").unwrap();
        assert_eq!(place, Place { scheme: "s3", bucket: "bucket", prefix });
        assert_eq!(Place::parse("s3://bucket").unwrap().prefix.as_ref(), "");
        assert_eq!(Place::parse("s3://bucket/").unwrap().prefix.as_ref(), "");
        assert_eq!(Place::parse("memory://").unwrap().prefix.as_ref(), "");
        assert_eq!(
            Place::parse("abfs://c@a.dfs.core.windows.net/run").unwrap().bucket,
            "c@a.dfs.core.windows.net"
        );
        for (url, help) in [
            ("file:///tmp/run", "Local"),
            ("http://bucket/run", "unknown scheme"),
            ("runs/lenet", "no scheme"),
            ("s3:///run", "no bucket"),
            ("s3://bucket//run", "single slashes"),
            ("s3://bucket/run//", "single slashes"),
            ("s3://bucket/a/../run", "single slashes"),
        ] {
            let error = Place::parse(url).unwrap_err().to_string();
            assert!(error.contains(url) && error.contains(help), "{error}");
        }
    }
}
