//! One pull: the manifest for this machine, its configuration, its layers.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use corten_base::BoxFuture;
use futures::future::{Either, select};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use hyper::{Method, Response, StatusCode};
use tokio::sync::mpsc;

use super::endpoint::{Ask, Endpoint};
use super::{Login, Progress, PullError, Registry};
use crate::oci::{self, ConfigFile, Descriptor, Index, Manifest};
use crate::{Digest, ImageError, ImageStore, Reference, Result};

/// Largest manifest or index, in bytes: the least that the distribution specification lets registries refuse above.
const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Largest configuration, in bytes.
const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// Layers that an image may have: what overlayfs can stack.
const LAYERS_MAX: usize = 500;
/// Layers of an image that are fetched at once (containerd's `max_concurrent_downloads`).
const LAYERS_AT_ONCE: usize = 3;
/// Indexes may name indexes; this deep is enough.
const INDEX_DEPTH_MAX: usize = 4;
/// How often a layer's transfer is taken up again without a byte in between.
const RESUMES_MAX: u32 = 4;
/// How long a body may stay silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Pieces of a layer that wait for the disk.
const PIECES_MAX: usize = 16;

const ACCEPT_MANIFESTS: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, */*";

/// What a pull has brought.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The digest that the reference resolved to: of an index, if there is one.
    pub digest: Digest,
    /// The login that served, if one was needed.
    pub login: Option<Login>,
    /// Whether the image was here already.
    pub unchanged: bool,
}

impl Registry {
    /// Makes the store hold what a reference names now. Logins are tried in order; none at all means to ask as nobody.
    ///
    /// # Errors
    /// [`ImageError::Pull`] with the last login's failure.
    pub async fn pull(
        &self,
        store: &ImageStore,
        reference: &Reference,
        logins: &[Login],
        progress: &Progress,
    ) -> Result<Pulled> {
        // Nobody removes content that no name needs yet while this lives.
        let guard = store.clone();
        let guarded = tokio::task::spawn_blocking(move || guard.content()).await;
        let _content = guarded.map_err(|error| ImageError::Unsupported(error.to_string()))??;
        let anonymous = [None];
        let logins: Vec<Option<&Login>> = match logins {
            [] => anonymous.to_vec(),
            all => all.iter().map(Some).collect(),
        };
        let mut failure = PullError::NotFound;
        for login in logins {
            match self.pull_as(store, reference, login, progress).await {
                Ok((digest, unchanged)) => return Ok(Pulled { digest, login: login.cloned(), unchanged }),
                Err(error) => failure = error,
            }
        }
        Err(ImageError::Pull { reference: shown(reference), error: Box::new(failure) })
    }

    fn endpoints(&self, reference: &Reference, login: Option<&Login>) -> Result<Vec<Endpoint>, PullError> {
        let (registry, path) = reference.repository.split_once('/').unwrap_or((&reference.repository, ""));
        let hosts = self.hosts.of(registry).map_err(PullError::Config)?;
        let endpoint = |host| Endpoint {
            host,
            repository: path.to_owned(),
            login: login.cloned(),
            connections: self.connections.clone(),
            clock: self.clock.clone(),
            authorization: Mutex::default(),
        };
        Ok(hosts.into_iter().map(endpoint).collect())
    }

    async fn pull_as(
        &self,
        store: &ImageStore,
        reference: &Reference,
        login: Option<&Login>,
        progress: &Progress,
    ) -> Result<(Digest, bool), PullError> {
        let endpoints = self.endpoints(reference, login)?;
        let known = store.resolve(&reference.to_string()).ok().map(|image| image.source);
        let mut failure = PullError::NotFound;
        for (n, endpoint) in endpoints.iter().enumerate() {
            if !endpoint.host.resolves {
                continue;
            }
            match self.resolve(endpoint, reference, known.as_ref()).await {
                Ok(Resolved::Unchanged(digest)) => return Ok((digest, true)),
                Ok(Resolved::Document(top)) => {
                    // The host that knew the name first, then the others.
                    let (before, from) = endpoints.split_at(n);
                    let sources: Vec<&Endpoint> = from.iter().chain(before).filter(|e| e.host.pulls).collect();
                    let pull = Pull { registry: self, store, sources: &sources, progress };
                    return pull.image(reference, top).await.map(|digest| (digest, false));
                }
                // The first host's word counts, unless it only said that it has nothing.
                Err(error) if n == 0 || matches!(failure, PullError::NotFound) => failure = error,
                Err(_) => {}
            }
        }
        Err(match failure {
            PullError::NotFound => {
                PullError::Status(resolving(reference, &format!("{}: not found", shown(reference))), false)
            }
            PullError::Store(error) => PullError::Store(error),
            other => PullError::Status(resolving(reference, &other.to_string()), false),
        })
    }

    async fn resolve(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        known: Option<&Digest>,
    ) -> Result<Resolved, PullError> {
        let wanted = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.as_str().to_owned(),
            (None, tag) => tag.clone().unwrap_or_default(),
        };
        let path = format!("manifests/{wanted}");
        // A question that costs the registry nothing, and does not count as a pull; containerd asks it first, too.
        let ask = Ask { method: &Method::HEAD, path: &path, accept: ACCEPT_MANIFESTS, from: 0 };
        let answer = endpoint.ask(ask).await?;
        let digest = answer.headers().get("docker-content-digest").and_then(|v| v.to_str().ok());
        if let Some(known) = known.filter(|known| digest.and_then(Digest::parse).as_ref() == Some(*known)) {
            return Ok(Resolved::Unchanged(known.clone()));
        }
        let document = document(endpoint, &path, reference.digest.as_ref(), MANIFEST_BYTES_MAX).await?;
        Ok(Resolved::Document(document))
    }
}

enum Resolved {
    Unchanged(Digest),
    Document(Document),
}

/// A small document with its digest and what it says that it is.
struct Document {
    bytes: Bytes,
    digest: Digest,
    media_type: String,
}

/// The reference as containerd shows it.
fn shown(reference: &Reference) -> String {
    reference.to_string()
}

fn resolving(reference: &Reference, why: &str) -> String {
    format!("failed to resolve reference \"{}\": {why}", shown(reference))
}

/// Reads a document, checks its digest.
async fn document(
    endpoint: &Endpoint,
    path: &str,
    expected: Option<&Digest>,
    bytes_max: u64,
) -> Result<Document, PullError> {
    let ask = Ask { method: &Method::GET, path, accept: ACCEPT_MANIFESTS, from: 0 };
    let answer = endpoint.ask(ask).await?;
    let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let told = header("docker-content-digest").and_then(|text| Digest::parse(&text));
    let media_type = header(CONTENT_TYPE.as_str()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
    let bytes = endpoint.read(answer, usize::try_from(bytes_max).unwrap_or(usize::MAX)).await?;
    let digest = Digest::of(&bytes);
    if let Some(expected) = expected.or(told.as_ref()).filter(|expected| **expected != digest) {
        return Err(PullError::Digest { expected: expected.clone(), actual: digest });
    }
    Ok(Document { bytes, digest, media_type })
}

struct Pull<'p> {
    registry: &'p Registry,
    store: &'p ImageStore,
    sources: &'p [&'p Endpoint],
    progress: &'p Progress,
}

impl Pull<'_> {
    async fn image(&self, reference: &Reference, top: Document) -> Result<Digest, PullError> {
        let source = top.digest.clone();
        let document = self.for_this_machine(top).await?;
        let manifest: Manifest = read_json(&document.bytes, "manifest")?;
        check_manifest(&manifest)?;
        let config_bytes = self.small(&manifest.config, CONFIG_BYTES_MAX).await?;
        let config: ConfigFile = read_json(&config_bytes, "image configuration")?;
        check_config(&manifest, &config)?;
        self.progress.begin(manifest.layers.iter().map(|layer| layer.size).sum());
        let mut seen = HashSet::new();
        let mut fetches: Vec<BoxFuture<'_, Result<(), PullError>>> = Vec::new();
        for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            if seen.insert((&layer.digest, diff_id)) {
                fetches.push(Box::pin(self.layer(layer, diff_id)));
            }
        }
        stream::iter(fetches).buffer_unordered(LAYERS_AT_ONCE).try_collect::<Vec<()>>().await?;
        let (store, bytes, name) = (self.store.clone(), document.bytes, name_of(reference, &source));
        let named = source.clone();
        blocking(move || store.name_pulled(&config_bytes, &bytes, &name, &named)).await?;
        Ok(source)
    }

    /// The manifest for this machine, behind any number of indexes.
    async fn for_this_machine(&self, top: Document) -> Result<Document, PullError> {
        let mut document = top;
        for _ in 0..=INDEX_DEPTH_MAX {
            match oci::document_kind(&document.bytes, &document.media_type).map_err(PullError::Protocol)? {
                oci::DocumentKind::Manifest => return Ok(document),
                oci::DocumentKind::Index => {}
            }
            let index: Index = read_json(&document.bytes, "index")?;
            let chosen = oci::choose(&index).map_err(|found| {
                let wanted = format!("linux/{}", oci::architecture());
                PullError::Protocol(format!(
                    "no match for platform in manifest: {wanted} is not among {found}: not found"
                ))
            })?;
            document = self.manifest(&chosen).await?;
        }
        Err(PullError::Protocol(format!("indexes in indexes, more than {INDEX_DEPTH_MAX} deep")))
    }

    async fn manifest(&self, descriptor: &Descriptor) -> Result<Document, PullError> {
        if descriptor.size > MANIFEST_BYTES_MAX {
            return Err(PullError::Protocol(format!("a manifest of {} bytes", descriptor.size)));
        }
        let path = format!("manifests/{}", descriptor.digest);
        self.first_that_can(|endpoint| document(endpoint, &path, Some(&descriptor.digest), MANIFEST_BYTES_MAX)).await
    }

    /// A small blob.
    async fn small(&self, descriptor: &Descriptor, bytes_max: u64) -> Result<Bytes, PullError> {
        if descriptor.size > bytes_max {
            return Err(PullError::Protocol(format!("an image configuration of {} bytes", descriptor.size)));
        }
        let path = format!("blobs/{}", descriptor.digest);
        let found =
            self.first_that_can(|endpoint| document(endpoint, &path, Some(&descriptor.digest), bytes_max)).await?;
        Ok(found.bytes)
    }

    /// The first host that can.
    async fn first_that_can<'s, T, F: Future<Output = Result<T, PullError>>>(
        &'s self,
        ask: impl Fn(&'s Endpoint) -> F,
    ) -> Result<T, PullError> {
        let mut failure = PullError::NotFound;
        for endpoint in self.sources {
            match ask(endpoint).await {
                Ok(found) => return Ok(found),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Fetches a layer, unless it is here, and unpacks it.
    async fn layer(&self, layer: &Descriptor, diff_id: &Digest) -> Result<(), PullError> {
        let flight = self.registry.flights.of(&layer.digest);
        let _alone = flight.lock().await;
        let here = {
            let (store, layer, diff_id) = (self.store.clone(), layer.clone(), diff_id.clone());
            blocking(move || store.has_layer(&layer.digest, &diff_id)).await?
        };
        if here {
            self.progress.add(layer.size);
        } else {
            self.fetch(layer, diff_id).await?;
        }
        let (store, layer, diff_id) = (self.store.clone(), layer.clone(), diff_id.clone());
        blocking(move || store.unpack_layer(&layer.digest, &diff_id)).await
    }

    async fn fetch(&self, layer: &Descriptor, diff_id: &Digest) -> Result<(), PullError> {
        let (pieces, receiver) = mpsc::channel(PIECES_MAX);
        let (store, expected, wanted) = (self.store.clone(), layer.clone(), diff_id.clone());
        let keep = tokio::task::spawn_blocking(move || {
            let content = Pieces { receiver, current: Bytes::new() };
            store.receive_layer(content, &expected.digest, expected.size, &wanted)
        });
        let sent = self.send_pieces(layer, &pieces).await;
        let failed = sent.err();
        if let Some(error) = &failed {
            // The other side must not take a beginning for the whole.
            let _ = pieces.send(Err(io::Error::other(error.to_string()))).await;
        }
        drop(pieces);
        let kept = keep.await.map_err(|error| PullError::Transport(error.to_string()))?;
        match (kept, failed) {
            (Ok(_), None) => Ok(()),
            (Err(ImageError::CorruptBlob { expected, actual, .. }), None) => {
                Err(PullError::Digest { expected, actual })
            }
            // If the disk is full, that is why nobody took the rest.
            (Err(error), None | Some(PullError::Transport(_))) if !matches!(error, ImageError::Corrupt { .. }) => {
                Err(error.into())
            }
            (_, Some(error)) => Err(error),
            (Err(error), None) => Err(error.into()),
        }
    }

    /// Reads a layer from the hosts, and goes on where a connection broke.
    async fn send_pieces(&self, layer: &Descriptor, pieces: &mpsc::Sender<io::Result<Bytes>>) -> Result<(), PullError> {
        let path = format!("blobs/{}", layer.digest);
        let mut at = 0;
        let mut failures = 0;
        let mut host = 0;
        loop {
            // Nobody takes the rest, as on a full disk: asking again would only bring the next piece to nobody, and so on to the end.
            if pieces.is_closed() {
                return Err(PullError::Transport("the layer cannot be kept".into()));
            }
            let Some(endpoint) = self.sources.get(host) else { return Err(PullError::NotFound) };
            let before = at;
            let error = match self.stream(endpoint, &path, layer.size, &mut at, pieces).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if at > before {
                failures = 0;
            }
            failures += 1;
            let passes = error.may_pass() && failures <= RESUMES_MAX;
            if !passes && (at > 0 || host + 1 >= self.sources.len()) {
                return Err(error);
            }
            if passes {
                let pause = self.registry.clock.sleep(Duration::from_millis(250 << failures));
                select(Box::pin(pieces.closed()), pause).await;
            } else {
                host += 1;
                failures = 0;
            }
        }
    }

    async fn stream(
        &self,
        endpoint: &Endpoint,
        path: &str,
        size: u64,
        at: &mut u64,
        pieces: &mpsc::Sender<io::Result<Bytes>>,
    ) -> Result<(), PullError> {
        let answer = endpoint.ask(Ask { method: &Method::GET, path, accept: "*/*", from: *at }).await?;
        check_range(&answer, *at, size)?;
        let mut body = answer.into_body();
        loop {
            let silence = self.registry.clock.sleep(SILENCE_MAX);
            let frame = match select(body.frame(), silence).await {
                Either::Left((frame, _)) => frame,
                Either::Right(_) => return Err(PullError::Transport("timeout while reading body".into())),
            };
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| PullError::Transport(error.to_string()))?;
            let Ok(piece) = frame.into_data() else { continue };
            *at += piece.len() as u64;
            if *at > size {
                return Err(PullError::Protocol(format!("{path}: more than the {size} bytes that its manifest says")));
            }
            self.progress.add(piece.len() as u64);
            if pieces.send(Ok(piece)).await.is_err() {
                return Err(PullError::Transport("the layer cannot be kept".into()));
            }
        }
        match *at == size {
            true => Ok(()),
            false => Err(PullError::Transport(format!("{path}: unexpected EOF after {at} of {size} bytes"))),
        }
    }
}

/// Whether an answer begins where it was asked to, and is as long as the manifest says.
fn check_range(answer: &Response<Incoming>, from: u64, size: u64) -> Result<(), PullError> {
    let header = |name: hyper::header::HeaderName| answer.headers().get(name).and_then(|v| v.to_str().ok());
    if from > 0 {
        let range = header(CONTENT_RANGE).unwrap_or_default();
        if answer.status() != StatusCode::PARTIAL_CONTENT || !range.starts_with(&format!("bytes {from}-")) {
            return Err(PullError::Protocol(format!("a transfer cannot be taken up again at byte {from}")));
        }
    }
    match header(CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok()) {
        Some(length) if length != size - from => Err(PullError::Protocol(format!(
            "a blob of {} bytes, its manifest says {size}",
            length.saturating_add(from)
        ))),
        _ => Ok(()),
    }
}

fn check_manifest(manifest: &Manifest) -> Result<(), PullError> {
    let wrong = |why: String| Err(PullError::Protocol(format!("unsupported manifest: {why}")));
    if manifest.layers.len() > LAYERS_MAX {
        return wrong(format!("{} layers", manifest.layers.len()));
    }
    if !oci::is_image_config(&manifest.config.media_type) {
        return wrong(format!("its configuration is of the type {:?}", manifest.config.media_type));
    }
    for layer in &manifest.layers {
        if !oci::is_layer(&layer.media_type) {
            return wrong(format!("a layer of the type {:?}", layer.media_type));
        }
    }
    if manifest.layers.iter().try_fold(0_u64, |sum, layer| sum.checked_add(layer.size)).is_none() {
        return wrong("its layers are larger than any disk".into());
    }
    Ok(())
}

fn check_config(manifest: &Manifest, config: &ConfigFile) -> Result<(), PullError> {
    let here = config.os == "linux" && config.architecture == oci::architecture();
    if !here {
        let found = format!("{}/{}", config.os, config.architecture);
        let wanted = format!("linux/{}", oci::architecture());
        return Err(PullError::Protocol(format!(
            "no match for platform in manifest: the image is for {found}, not {wanted}: not found"
        )));
    }
    let (layers, ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    match layers == ids {
        true => Ok(()),
        false => Err(PullError::Protocol(format!(
            "mismatched image rootfs and manifest layers: {layers} layers, {ids} diffIDs"
        ))),
    }
}

/// What the store knows a pulled image by: a digest says more than a tag beside it.
fn name_of(reference: &Reference, source: &Digest) -> String {
    match &reference.digest {
        Some(_) => format!("{}@{source}", reference.repository),
        None => reference.name(),
    }
}

fn read_json<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, PullError> {
    serde_json::from_slice(bytes).map_err(|error| PullError::Protocol(format!("invalid {what}: {error}")))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T, PullError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| PullError::Transport(error.to_string()))??)
}

/// What arrives, for who reads on a thread of its own.
struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.current.len());
        buffer[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}
