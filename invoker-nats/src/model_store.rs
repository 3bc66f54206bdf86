//! The file of a model in the server's object store, for nodes without a file system in common.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use futures_util::FutureExt;
use invoker::{Image, LoadOptions, StageError};
use shm_buffers::stage_with;
use tokio::fs::File;
use tokio::io::{BufReader, copy_buf};
use tokio::time::{sleep, timeout};

use crate::cluster::Cluster;
use crate::error::Error;
use crate::link::Link;
use crate::node::ASK;

/// The name of the object.
const MODEL: &str = "model";
/// Bytes that are written at a time.
const PART: usize = 1 << 20;

impl Cluster {
    /// Puts the file of a [saved](Image::save) model into the server's object store, where nodes [fetch](Self::fetch_model) it.
    /// For a few gigabytes; a shared file system is faster. It replaces the model of an earlier run of the same name, and stays there
    /// until [`remove_model`](Self::remove_model).
    ///
    /// # Errors
    /// [`Error::Stage`] if the file cannot be read, or is not an image that was saved; [`Error::Connect`], [`Error::Server`].
    pub fn publish_model(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref().to_owned();
        if let Err(error) = Image::verify_file(&path, &LoadOptions::new()) {
            let source = Box::new(error);
            return Err(StageError::Damaged { path, source }.into());
        }
        let (thread, link) = self.connect("model")?;
        thread.wait(async {
            let step = "read";
            let opened = File::open(&path).await;
            let mut file = opened.map_err(|source| StageError::File { step, path, source })?;
            let store = link.create_store(link.model_bucket()).await?;
            let failed = Error::server("store the model");
            store.put(MODEL, &mut file).await.map(drop).map_err(failed)
        })
    }

    /// Fetches the model that was [published](Self::publish_model) into a directory of this machine, unless it is there, and returns the
    /// path of the file. Waits until there is one. Several processes may do so at the same time: one fetches it, the others wait.
    ///
    /// The file has another name until it is complete, and its checksum is that of the image that was saved.
    ///
    /// # Errors
    /// [`Error::NoModel`] if none is published in [time](Self::wait); [`Error::Stage`], [`Error::Connect`].
    pub fn fetch_model(&self, dir: impl AsRef<Path>) -> Result<PathBuf, Error> {
        let (thread, link) = self.connect("model")?;
        let finding = async { Ok(timeout(self.wait, find_digest(&link)).await.ok()) };
        let found = thread.wait(link.permitted(finding));
        let missing = || Error::NoModel {
            run: self.run.clone(),
            waited: self.wait,
        };
        let digest = found?.ok_or_else(missing)?;
        // Another model has another name: the file of an earlier run may still be mapped.
        let path = dir.as_ref().join(format!("{}-{digest}.safetensors", self.run));
        let fetch = |new: &Path| {
            // The client panics if the server does not reply in time.
            let copied = thread.wait(AssertUnwindSafe(copy(&link, new)).catch_unwind());
            copied.unwrap_or_else(|_| Err(std::io::Error::other("the server does not reply")))
        };
        stage_with(&path, Path::exists, fetch)?;
        Ok(path)
    }

    /// Removes the [published](Self::publish_model) model from the server.
    ///
    /// # Errors
    /// [`Error::Connect`]; [`Error::Server`], also if no model is published.
    pub fn remove_model(&self) -> Result<(), Error> {
        let (thread, link) = self.connect("model")?;
        let removed = thread.wait(link.context.delete_object_store(link.model_bucket()));
        removed.map_err(Error::server("remove the model"))
    }
}

/// Waits until there is a model, and returns what identifies it, as a part of a file's name.
async fn find_digest(link: &Link) -> String {
    loop {
        if let Some(digest) = digest(link).await {
            return digest;
        }
        sleep(ASK).await;
    }
}

async fn digest(link: &Link) -> Option<String> {
    let info = link
        .context
        .get_object_store(link.model_bucket())
        .await
        .ok()?
        .info(MODEL)
        .await
        .ok()?;
    let name = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    Some(info.digest?.chars().take(64).map(name).collect())
}

async fn copy(link: &Link, path: &Path) -> std::io::Result<()> {
    let store = link.context.get_object_store(link.model_bucket()).await;
    let object = store
        .map_err(std::io::Error::other)?
        .get(MODEL)
        .await
        .map_err(std::io::Error::other)?;
    let mut file = File::create(path).await?;
    copy_buf(&mut BufReader::with_capacity(PART, object), &mut file).await?;
    file.sync_all().await
}
