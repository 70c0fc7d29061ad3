//! Images for a test's pods: made here, served by Debian's `docker-registry`, fetched through a line that can be slow, break or die.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use corten_base::SystemClock;
use corten_images::{BuildOptions, Digest, Hosts, Image, ImageConfig, ImageStore, Registry};
use corten_node::StoreImages;
use corten_testkit::registry::{self as debian, Content, put_blob, put_manifest};
use tokio::sync::watch;

use crate::Cluster;
use crate::watching::until_in;

/// What the line does with what the registry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Everything passes.
    Open,
    /// After so many further bytes nothing passes until the mood changes.
    StallAfter(u64),
    /// After so many further bytes connections break, and new ones with them.
    BreakAfter(u64),
}

struct Line {
    mood: Mutex<Mood>,
    changed: Condvar,
    /// Bytes that have passed towards the node, and connections that were broken.
    passed: watch::Sender<(u64, u64)>,
}

impl Line {
    /// Whether so many bytes may pass; waits while the line is stalled.
    fn may_pass(&self, bytes: u64) -> bool {
        let mut mood = self.mood.lock().unwrap();
        loop {
            match *mood {
                Mood::Open => break,
                Mood::StallAfter(left) if left >= bytes => {
                    *mood = Mood::StallAfter(left - bytes);
                    break;
                }
                Mood::BreakAfter(left) if left >= bytes => {
                    *mood = Mood::BreakAfter(left - bytes);
                    break;
                }
                Mood::StallAfter(_) => mood = self.changed.wait(mood).unwrap(),
                Mood::BreakAfter(_) => {
                    *mood = Mood::BreakAfter(0);
                    self.passed.send_modify(|passed| passed.1 += 1);
                    return false;
                }
            }
        }
        self.passed.send_modify(|passed| passed.0 += bytes);
        true
    }
}

/// A registry with images.
pub struct Shop {
    dir: PathBuf,
    source: ImageStore,
    /// Ends with the shop.
    _server: debian::Registry,
    line: Arc<Line>,
    /// `127.0.0.1:PORT`, through the line.
    pub address: String,
}

impl Shop {
    /// An empty registry; `auth` are lines of its configuration. The node pulls from it from now on.
    pub async fn open(cluster: &mut Cluster, auth: &[&str]) -> Shop {
        let shop = Shop::start(cluster, auth);
        let store = ImageStore::open(&cluster.config.data_dir).unwrap();
        let hosts = Hosts { dirs: vec![cluster.base.join("registries")] };
        let (registry, clock) = (Registry::new(hosts, Arc::new(SystemClock)), Arc::new(SystemClock));
        cluster.images = Arc::new(StoreImages::new(store, registry, vec![cluster.base.join("config.json")], clock));
        cluster.restart_agent().await;
        shop
    }

    fn start(cluster: &Cluster, auth: &[&str]) -> Shop {
        let dir = cluster.base.join("registry");
        std::fs::create_dir_all(&dir).unwrap();
        let source = ImageStore::open(&dir).unwrap();
        let server = debian::Registry::start(&dir.join("storage"), &[], auth).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let line = Arc::new(Line {
            mood: Mutex::new(Mood::Open),
            changed: Condvar::new(),
            passed: watch::Sender::new((0, 0)),
        });
        let (shared, to) = (line.clone(), server.address.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (line, to) = (shared.clone(), to.clone());
                std::thread::spawn(move || carry(&line, stream, &to));
            }
        });
        Shop { dir, source, _server: server, line, address }
    }

    pub fn mood(&self, mood: Mood) {
        *self.line.mood.lock().unwrap() = mood;
        self.line.changed.notify_all();
    }

    /// Bytes that have passed towards the node, and connections that were broken.
    pub fn passed(&self) -> (u64, u64) {
        *self.line.passed.borrow()
    }

    /// Waits until so many connections were broken.
    pub async fn until_broken(&self, count: u64) {
        let mut passed = self.line.passed.subscribe();
        let broken = passed.wait_for(|passed| passed.1 >= count);
        let broken = tokio::time::timeout(crate::watching::LIMIT, broken).await;
        assert!(broken.is_ok(), "{:?}", self.passed());
    }

    fn storage(&self) -> PathBuf {
        self.dir.join("storage")
    }

    /// An image's name.
    pub fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.address)
    }

    /// Makes an image of a directory and puts it into the registry as `repository:tag`.
    pub fn publish(&self, from: &Path, repository: &str, tag: &str, config: ImageConfig) -> Image {
        let name = format!("made.test/{repository}:{tag}");
        self.source.build(from, &name, &BuildOptions { config: Some(config), owner: None }).unwrap();
        let image = self.source.resolve(&name).unwrap();
        for digest in image.layers.iter().map(|layer| &layer.blob).chain([&image.id]) {
            put_blob(&self.storage(), repository, digest.as_str(), Content::File(&self.made(digest))).unwrap();
        }
        self.put(repository, Some(tag), &std::fs::read(self.made(&image.manifest)).unwrap());
        image
    }

    /// Where a blob is that was made here.
    pub fn made(&self, digest: &Digest) -> PathBuf {
        self.dir.join("images/blobs/sha256").join(digest.hex())
    }

    /// Puts a manifest or an index into a repository.
    pub fn put(&self, repository: &str, tag: Option<&str>, document: &[u8]) -> Digest {
        let digest = Digest::of(document);
        put_manifest(&self.storage(), repository, tag, digest.as_str(), Content::Bytes(document)).unwrap();
        digest
    }

    /// Puts a blob into a repository.
    pub fn put_blob(&self, repository: &str, blob: &[u8]) -> Digest {
        let digest = Digest::of(blob);
        put_blob(&self.storage(), repository, digest.as_str(), Content::Bytes(blob)).unwrap();
        digest
    }

    /// Changes a blob behind the registry's back.
    pub fn tamper(&self, digest: &Digest, with: &[u8]) {
        let hex = digest.hex();
        let file = self.storage().join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data");
        std::fs::remove_file(&file).unwrap();
        std::fs::write(file, with).unwrap();
    }

    /// Makes `repository:tag` of busybox and one file; it prints the file when it starts, and sleeps.
    pub fn publish_text(&self, cluster: &Cluster, repository: &str, tag: &str, text: &str) -> Image {
        let dir = cluster.image_root(repository, &[("text", text.as_bytes())]);
        self.publish(&dir, repository, tag, shell("cat /text; sleep 1000"))
    }
}

/// How an image runs a script.
pub fn shell(script: &str) -> ImageConfig {
    let words = ["sh", "-c", script].map(str::to_owned);
    ImageConfig { cmd: words.to_vec(), env: vec!["PATH=/bin".into()], ..ImageConfig::default() }
}

/// Carries one connection until either side ends it or the line breaks.
fn carry(line: &Line, client: TcpStream, to: &str) {
    // Of a broken line not even a connection comes through.
    if *line.mood.lock().unwrap() == Mood::BreakAfter(0) {
        line.passed.send_modify(|passed| passed.1 += 1);
        return;
    }
    let Ok(server) = TcpStream::connect(to) else { return };
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let (mut server, mut client) = (server, client);
    let mut piece = vec![0; 1 << 14];
    while let Ok(n @ 1..) = server.read(&mut piece) {
        if !line.may_pass(n as u64) || client.write_all(&piece[..n]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

impl Cluster {
    /// Starts the agent anew, with the configuration and the images that the test has put in.
    pub async fn restart_agent(&mut self) {
        drop(self.stop_agent().await);
        self.start_agent().await;
    }

    /// What the node's server answers.
    pub async fn get(&self, path: &str, query: &str) -> Vec<u8> {
        use futures::StreamExt as _;
        let request = corten_client::NodeRequest {
            node: "n1".into(),
            method: "GET".into(),
            path: path.into(),
            query: query.into(),
            ..corten_client::NodeRequest::default()
        };
        let mut answer = self.node().http(request).await.unwrap();
        assert_eq!(answer.code, 200);
        let mut out = Vec::new();
        while let Some(chunk) = answer.body.next().await {
            out.extend_from_slice(&chunk.unwrap());
        }
        out
    }

    /// Waits until the node's images are so: their ids.
    pub async fn until_images(&self, what: &str, check: impl Fn(&[String]) -> bool) {
        let seen = async || {
            let stored = self.images.stored().await.unwrap();
            check(&stored.into_iter().map(|image| image.id).collect::<Vec<String>>())
        };
        // The index is replaced as a whole.
        until_in(&[&self.config.data_dir.join("images")], what, seen).await;
    }

    /// A root directory of busybox and some files.
    pub fn image_root(&self, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let dir = self.base.join("made").join(name);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.parent().unwrap()).unwrap();
        let copied = std::process::Command::new("cp").arg("-a").arg(self.base.join("rootfs")).arg(&dir).status();
        assert!(copied.unwrap().success());
        for (path, content) in files {
            let file = dir.join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
        }
        dir
    }

    /// A pod of one container with an image.
    pub fn create_of_image(&self, name: &str, image: &str, policy: &str, more: &str) {
        self.create(
            name,
            &format!(r#"{more}"containers":[{{"name":"c","image":"{image}","imagePullPolicy":"{policy}"}}]"#),
        );
    }

    /// Waits until a pod's container waits for a reason; its message.
    pub async fn waiting(&self, pod: &str, reason: &str) -> String {
        let state = "state.waiting";
        let found = self.until(pod, reason, |pod| {
            let status = pod.list_at("status.containerStatuses").first().cloned().unwrap_or_default();
            status.str_at(&format!("{state}.reason")) == reason
        });
        let status = found.await.list_at("status.containerStatuses")[0].clone();
        status.str_at(&format!("{state}.message")).to_owned()
    }

    /// All events about a pod: type, reason, field path, message.
    pub fn events_of(&self, pod: &str) -> Vec<[String; 4]> {
        let all = self.api.all(corten_kinds::id::EVENT).into_iter().map(|event| event.to_tree());
        let own = all.filter(|event| event.str_at("involvedObject.name") == pod);
        let part = |event: &corten_tree::Tree, path: &str| event.str_at(path).to_owned();
        own.map(|e| ["type", "reason", "involvedObject.fieldPath", "message"].map(|path| part(&e, path))).collect()
    }

    /// Waits for the first event with this reason about a pod or its container with this field path; what it says.
    pub async fn event_says(&self, pod: &str, reason: &str, about: &str) -> String {
        let found = |_: &_| {
            let mut all = self.events_of(pod).into_iter();
            all.find(|e| e[1] == reason && e[2] == about).map(|[.., message]| message)
        };
        self.api.until(&format!("{reason} of {pod}"), found).await
    }

    /// Waits for an event about a pod. `about`: the container `c`'s field path, or nothing.
    pub async fn event(&self, pod: &str, kind: &str, reason: &str, about: &str, message: &str) {
        let wanted = [kind, reason, about, message].map(str::to_owned);
        let what = format!("{wanted:?}");
        let found = self.api.until(&what, |_| self.events_of(pod).contains(&wanted).then_some(()));
        let found = std::panic::AssertUnwindSafe(found);
        use futures::FutureExt as _;
        if found.catch_unwind().await.is_err() {
            panic!("no event {wanted:?} among {:#?}", self.events_of(pod));
        }
    }
}

/// A file system of its own for what the node keeps, so that it can be full.
pub struct Disk(corten_testkit::disk::Disk);

impl Disk {
    /// Mounts one of so many MiB as the node's data directory; the agent starts anew on it.
    pub async fn mount(cluster: &mut Cluster, mib: u64) -> Disk {
        drop(cluster.stop_agent().await);
        let disk = corten_testkit::disk::Disk::mount(&cluster.config.data_dir, mib).unwrap();
        cluster.start_agent().await;
        Disk(disk)
    }

    /// Percent that are used, as the node counts.
    pub fn used_percent(&self) -> u64 {
        let found = rustix::fs::statvfs(self.0.path()).unwrap();
        100 - found.f_bavail * 100 / found.f_blocks
    }

    /// Waits until less is used.
    pub async fn until_below(&self, percent: u64) {
        // What images lose goes through this directory.
        let below = async || self.used_percent() < percent;
        until_in(&[&self.0.path().join("images/tmp")], &format!("less than {percent} percent"), below).await;
        // An image goes in parts: who removes it lets go of this lock when all have gone.
        let lock = std::fs::File::open(self.0.path().join("images/content.lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockShared).unwrap();
    }

    /// Fills it until so much is used, at one stroke: otherwise the node could begin to clear up in the middle of it.
    pub fn fill(&self, percent: u64) {
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(self.0.path().join("filler"));
        let file = file.unwrap();
        let found = rustix::fs::statvfs(self.0.path()).unwrap();
        // The most that may stay available, and a little less: the file's own blocks count, too.
        let stays = (101 - percent) * found.f_blocks / 100 - (1 << 18) / found.f_frsize;
        let more = found.f_bavail.saturating_sub(stays) * found.f_frsize;
        let none = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(&file, none, file.metadata().unwrap().len(), more).unwrap();
        assert_eq!(self.used_percent(), percent);
    }

    /// Ends the test's node and its disk.
    pub async fn end(self, mut cluster: Cluster) {
        let agent = cluster.stop_agent().await;
        agent.teardown().await.unwrap();
        self.0.unmount().unwrap();
        std::fs::remove_dir_all(&cluster.base).unwrap();
    }
}
