//! URLs to stores. Owns: schemes, and the settings that differ from the `object_store` crate's own.

use crate::ObjectStoreEngine;
use object_store::ObjectStore;
use std::sync::Arc;
use tensorkeep::engine::{Engine, Local};
use tensorkeep::{Error, ErrorKind, Result};

/// A place as a URL says it: `scheme://bucket/prefix`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place<'u> {
    pub scheme: &'u str,
    pub bucket: &'u str,
    pub prefix: &'u str,
}

impl<'u> Place<'u> {
    pub(crate) fn parse(url: &'u str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| unknown(url, "no scheme"))?;
        let rest = rest.trim_end_matches('/');
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/');
        let place = Self { scheme, bucket, prefix };
        match scheme {
            "memory" => Ok(Self { bucket: "", prefix: rest.trim_matches('/'), ..place }),
            "file" => Err(Error::new(ErrorKind::Unsupported, "a folder is not an object store")
                .in_object(url)
                .help("use tensorkeep_object_store::open_url, which opens it by tensorkeep::engine::Local")),
            "s3" | "s3a" | "gs" | "az" | "azure" | "abfs" | "abfss" if bucket.is_empty() => {
                Err(unknown(url, "no bucket"))
            }
            "s3" | "s3a" | "gs" | "az" | "azure" | "abfs" | "abfss" => Ok(place),
            _ => Err(unknown(url, "an unknown scheme")),
        }
    }
}

fn unknown(url: &str, found: &'static str) -> Error {
    Error::new(ErrorKind::Invalid, "no URL of an object store")
        .in_object(url)
        .expected("s3://bucket/run, gs://bucket/run, az://container/run or memory://")
        .found(found)
}

/// Environment variables of a store, in lower case, then the caller's options, which count more.
type Options = Vec<(String, String)>;

fn all_options(variables: &str, options: &[(String, String)]) -> Options {
    let variables = std::env::vars_os().filter_map(|(key, value)| {
        let (key, value) = (key.into_string().ok()?, value.into_string().ok()?);
        key.starts_with(variables).then(|| (key.to_ascii_lowercase(), value))
    });
    let options = options.iter().map(|(key, value)| (key.to_ascii_lowercase(), value.clone()));
    variables.chain(options).collect()
}

/// The engine at any URL: `file://` is a folder, whose engine is the library's own, which syncs what it commits.
///
/// # Errors
/// As [`ObjectStoreEngine::from_url`], and as [`Local::create`].
pub fn open(url: &str) -> Result<Arc<dyn Engine>> {
    match url.strip_prefix("file://") {
        Some(folder) => Ok(Arc::new(Local::create(folder)?)),
        None => Ok(Arc::new(ObjectStoreEngine::from_url(url)?)),
    }
}

/// The store of a place.
pub(crate) fn store_of(
    url: &str,
    place: &Place<'_>,
    options: &[(String, String)],
) -> Result<Arc<dyn ObjectStore>> {
    let built = match place.scheme {
        "memory" => Ok(Arc::new(object_store::memory::InMemory::new()) as Arc<dyn ObjectStore>),
        #[cfg(feature = "aws")]
        "s3" | "s3a" => s3(place, &all_options("AWS_", options)),
        #[cfg(feature = "gcp")]
        "gs" => gcs(place, &all_options("GOOGLE_", options)),
        #[cfg(feature = "azure")]
        "az" | "azure" | "abfs" | "abfss" => azure(url, place, &all_options("AZURE_", options)),
        _ => {
            return Err(Error::new(ErrorKind::Unsupported, "this build has no such store")
                .in_object(url)
                .help("build tensorkeep-object-store with the feature aws, gcp or azure"));
        }
    };
    built.map_err(|error| crate::error::explain("opening the store", url, error))
}

/// A request may take this long: a part of 8 MiB at 70 kB/s. The crate's 30 s fail on slow lines.
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
const REQUEST_TIMEOUT: &str = "120 seconds";

/// Settings of all clients that the caller has not made.
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
fn client_defaults(options: &Options) -> Option<object_store::ClientConfigKey> {
    let key = object_store::ClientConfigKey::Timeout;
    (!options.iter().any(|(name, _)| name == key.as_ref())).then_some(key)
}

#[cfg(feature = "aws")]
fn s3(place: &Place<'_>, options: &Options) -> object_store::Result<Arc<dyn ObjectStore>> {
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
    // Single deletes: some stores that speak S3 have no bulk delete, and rotation deletes one by one.
    let mut builder = AmazonS3Builder::new().with_bucket_name(place.bucket).with_disable_bulk_delete(true);
    if let Some(timeout) = client_defaults(options) {
        builder = builder.with_config(AmazonS3ConfigKey::Client(timeout), REQUEST_TIMEOUT);
    }
    for (key, value) in options {
        if let Ok(key) = key.parse() {
            builder = builder.with_config(key, value);
        }
    }
    Ok(Arc::new(builder.build()?))
}

#[cfg(feature = "gcp")]
fn gcs(place: &Place<'_>, options: &Options) -> object_store::Result<Arc<dyn ObjectStore>> {
    use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
    let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name(place.bucket);
    if let Some(timeout) = client_defaults(options) {
        builder = builder.with_config(GoogleConfigKey::Client(timeout), REQUEST_TIMEOUT);
    }
    for (key, value) in options {
        if let Ok(key) = key.parse() {
            builder = builder.with_config(key, value);
        }
    }
    Ok(Arc::new(builder.build()?))
}

#[cfg(feature = "azure")]
fn azure(url: &str, place: &Place<'_>, options: &Options) -> object_store::Result<Arc<dyn ObjectStore>> {
    use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
    let builder = MicrosoftAzureBuilder::new();
    // abfs://container@account.dfs.core.windows.net/… names the account, too.
    let mut builder = match place.bucket.contains('@') {
        true => builder.with_url(url),
        false => builder.with_container_name(place.bucket),
    };
    if let Some(timeout) = client_defaults(options) {
        builder = builder.with_config(AzureConfigKey::Client(timeout), REQUEST_TIMEOUT);
    }
    for (key, value) in options {
        if let Ok(key) = key.parse() {
            builder = builder.with_config(key, value);
        }
    }
    Ok(Arc::new(builder.build()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_and_others_are_refused_with_what_to_write() {
        let place = Place::parse("s3://bucket/runs/lenet/").unwrap();
        assert_eq!(place, Place { scheme: "s3", bucket: "bucket", prefix: "runs/lenet" });
        assert_eq!(Place::parse("s3://bucket").unwrap().prefix, "");
        assert_eq!(Place::parse("memory://").unwrap().prefix, "");
        for (url, help) in [
            ("file:///tmp/run", "Local"),
            ("http://bucket/run", "unknown scheme"),
            ("runs/lenet", "no scheme"),
            ("s3:///run", "no bucket"),
        ] {
            let error = Place::parse(url).unwrap_err().to_string();
            assert!(error.contains(url) && error.contains(help), "{error}");
        }
    }
}
