//! Object stores: which one a URL means, and putting a file there.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ObjectStore, ObjectStoreExt, RetryConfig, WriteMultipart, path};

use super::connector::Connector;
use crate::stats::hash::hash;

/// The file that says where the files of a spool's folder go.
pub(super) const URL: &str = ".url";

/// Larger files are put in parts of this size.
const PART: usize = 8 << 20;

/// Parts under way.
const AT_ONCE: usize = 2;

/// One object store, and the place in it.
#[derive(Debug)]
pub(super) struct Store {
    store: Arc<dyn ObjectStore>,
    prefix: String,
}

/// The spool's folder of the files that go to `url`.
pub(super) fn spool_of(spool: &Path, url: &str) -> PathBuf {
    spool.join(format!("{:016x}", hash(url.as_bytes())))
}

impl Store {
    /// The store that `url` means. Credentials and endpoints come from the environment, by the names
    /// that the stores' own programs use (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...).
    pub(super) fn open(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("it is no URL")?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        // What fails is tried again by the spool, with everything else of it.
        let retry = RetryConfig {
            max_retries: 2,
            retry_timeout: Duration::from_secs(30),
            ..RetryConfig::default()
        };
        let store: Result<Arc<dyn ObjectStore>, object_store::Error> = match scheme {
            "s3" => AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_retry(retry)
                .with_http_connector(Connector)
                .build()
                .map(|store| Arc::new(store) as _),
            "gs" => GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(bucket)
                .with_retry(retry)
                .with_http_connector(Connector)
                .build()
                .map(|store| Arc::new(store) as _),
            "az" => MicrosoftAzureBuilder::from_env()
                .with_container_name(bucket)
                .with_retry(retry)
                .with_http_connector(Connector)
                .build()
                .map(|store| Arc::new(store) as _),
            _ => return Err(format!("there is no object store '{scheme}'")),
        };
        let store = store.map_err(|error| error.to_string())?;
        Ok(Self { store, prefix: prefix.trim_matches('/').to_owned() })
    }

    /// Puts the file at `file` under `name`, whole or not at all.
    pub(super) async fn put(&self, name: &str, file: &Path) -> Result<(), String> {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        let place = path::Path::parse(format!("{}{slash}{name}", self.prefix));
        let place = place.map_err(|error| error.to_string())?;
        let cannot = |error: std::io::Error| format!("cannot read {}: {error}", file.display());
        let mut input = std::fs::File::open(file).map_err(cannot)?;
        let size = input.metadata().map_err(cannot)?.len();
        if size <= 2 * PART as u64 {
            let mut content = Vec::new();
            input.read_to_end(&mut content).map_err(cannot)?;
            let put = self.store.put(&place, Bytes::from(content).into()).await;
            return put.map(drop).map_err(|error| error.to_string());
        }
        let upload = self.store.put_multipart(&place).await.map_err(|error| error.to_string())?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        let mut left = size;
        while left > 0 {
            let mut part = vec![0; usize::try_from(left).unwrap_or(PART).min(PART)];
            let read = input.read_exact(&mut part).map_err(cannot);
            let ready = upload.wait_for_capacity(AT_ONCE).await.map_err(|error| error.to_string());
            if let Err(error) = read.and(ready) {
                // The store forgets what came so far, or its own rules do.
                drop(upload.abort().await);
                return Err(error);
            }
            left -= part.len() as u64;
            upload.put(part.into());
        }
        upload.finish().await.map(drop).map_err(|error| error.to_string())
    }
}
