//! Secrets in every place where people put them must not appear in any message.

mod common;

use common::{options, server};
use fake_s3::{Fault, Server};
use std::error::Error as _;
use std::time::Duration;
use tensorkeep::engine::Engine;
use tensorkeep::{Error, ErrorKind, Result};
use tensorkeep_object_store::ObjectStoreEngine;

const SECRET: &str = "hunter2SECRET";

/// Every text of an error.
fn words(error: &Error) -> String {
    let mut words = format!("{error}\n{error:?}\n{error:#?}");
    let mut source = error.source();
    while let Some(cause) = source {
        words += &format!("\n{cause}\n{cause:?}");
        source = cause.source();
    }
    words
}

fn open(server: &Server, url: &str, more: &[(&'static str, String)]) -> Result<ObjectStoreEngine> {
    let options = options(server).into_iter().chain(more.iter().cloned());
    Ok(ObjectStoreEngine::from_url_with(url, options)?.with_deadline(Duration::from_millis(300)))
}

#[test]
fn urls_with_secrets_are_refused_without_repeating_them() {
    let server = server();
    for url in [
        format!("s3://KEY:{SECRET}@bucket/run"),
        format!("s3://{SECRET}@bucket/run"),
        format!("s3://KEY%3A{SECRET}%40bucket/run"),
        format!("gs://KEY:{SECRET}@bucket/run"),
        format!("az://KEY:{SECRET}@container/run"),
        format!("abfs://container:{SECRET}@account.dfs.core.windows.net/run"),
        format!("s3://bucket/run?X-Amz-Signature={SECRET}"),
        format!("az://container/run?sv=1&sig={SECRET}"),
        format!("s3://bucket/run#{SECRET}"),
        format!("ftp://user:{SECRET}@host/run"),
        format!("user:{SECRET}@host/run?sig={SECRET}"),
    ] {
        let error = open(&server, &url, &[]).unwrap_err();
        let words = words(&error);
        assert!(!words.contains(SECRET), "{url}: {words}");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url}: {words}");
    }
    let error = open(&server, &format!("s3://KEY:{SECRET}@bucket/run"), &[]).unwrap_err().to_string();
    assert!(error.contains("AWS_ACCESS_KEY_ID"), "{error}");
    assert!(server.faults().take_calls().is_empty(), "something was sent");
}

#[test]
fn an_endpoint_with_a_password_is_masked_in_every_message() {
    let server = server();
    let host = server.endpoint().replace("http://", "");
    for endpoint in [format!("http://user:{SECRET}@{host}"), format!("http://user:{SECRET}@127.0.0.1:1")] {
        for fault in
            [None, Some(Fault::WrongSecret), Some(Fault::SlowDown), Some(Fault::NotFound), Some(Fault::Hang)]
        {
            if let Some(fault) = fault {
                server.faults().fail_after(0, usize::MAX, fault);
            }
            let engine = open(&server, "s3://bucket/run", &[("endpoint", endpoint.clone())]).unwrap();
            let errors = [
                engine.list("").err(),
                engine.open("a").err(),
                engine.create("a", None).err(),
                engine.delete("a").err(),
                engine.lock("me").err(),
            ];
            assert!(fault.is_none() || errors.iter().flatten().count() > 2);
            for error in errors.iter().flatten() {
                let words = words(error);
                assert!(!words.contains(SECRET), "{fault:?}: {words}");
            }
            assert!(!format!("{engine:?} {}", engine.describe("a")).contains(SECRET));
            server.faults().heal();
        }
    }
}

#[test]
fn a_line_break_in_a_key_is_an_error_and_no_panic() {
    let server = server();
    for key in ["access_key_id", "secret_access_key", "session_token", "token", "region"] {
        for value in
            [format!("{SECRET}\n"), format!(" {SECRET}"), format!("{SECRET} x"), format!("{SECRET}ü")]
        {
            let error = open(&server, "s3://bucket/run", &[(key, value.clone())])
                .and_then(|engine| engine.list(""))
                .unwrap_err();
            let words = words(&error);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{key} {value:?}: {words}");
            assert!(words.contains(key) && !words.contains(SECRET), "{key}: {words}");
        }
    }
    // These become headers of each request, in the middle of training.
    for key in ["default_content_type", "user_agent", "proxy_url"] {
        let error = open(&server, "s3://bucket/run", &[(key, "text/plain\r\nx: y".to_owned())])
            .and_then(|engine| engine.create("a", None)?.commit([1; 16]).map_err(Into::into))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{key}: {error}");
        assert!(error.to_string().contains(key), "{error}");
    }
    for url in ["s3://buc ket/run", "s3://bucket\n/run", "s3://büket/run", "s3://buc%20ket/run"] {
        let error = open(&server, url, &[]).and_then(|engine| engine.list("")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url:?}: {error}");
    }
}
