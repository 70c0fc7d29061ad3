//! Certificates in pods' volumes: trust bundles, followed while pods use some, and the pods' own certificates, asked for by
//! PodCertificateRequests (`pkg/kubelet/{clustertrustbundle,podcertificate}`).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use corten_base::{Clock, OnStop, Tasks, Timestamp};
use corten_client::{Api, ListOptions};
use corten_kinds::id;
use corten_object::selector::FieldTerm;
use corten_object::{FieldSelector, Object, ObjectKey, time};
use corten_podplan::env::{Credential, TrustBundle};
use corten_tree::{Tree, tree};
use corten_views::Pod;
use corten_views::volume::PodCertificateProjection;
use futures::StreamExt as _;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use tokio::sync::watch;

use crate::watcher::{Change, Watcher};
use crate::write;

/// How long a start waits for a signer before it fails and is tried again.
const ISSUE_WAIT: std::time::Duration = std::time::Duration::from_secs(30);
/// The life that a certificate is asked for when the volume says nothing, in seconds.
const SECONDS: i64 = 24 * 3600;
/// How long an answer of a signer that refused is remembered before it is asked again, in seconds.
const REFUSED_SECONDS: i64 = 300;

/// How often a renewal that takes long is looked after, in seconds.
const AGAIN_SECONDS: i64 = 60;

/// All trust bundles, of one moment.
pub type Bundles = Arc<Vec<Arc<TrustBundle>>>;

/// The cluster's trust bundles: read when the first pod wants some, followed from then on.
#[derive(Default)]
pub struct BundleFollower(OnceLock<watch::Receiver<Option<Bundles>>>);

impl BundleFollower {
    /// The bundles as they are and will be; waits for the first list.
    pub async fn follow(&self, api: &Arc<dyn Api>, tasks: &Tasks) -> watch::Receiver<Option<Bundles>> {
        let start = || {
            let (sender, receiver) = watch::channel(None);
            let mut watcher =
                Watcher::new(api.clone(), tasks.clock(), id::CLUSTER_TRUST_BUNDLE, ListOptions::default());
            tasks.spawn("node-trust-bundles", OnStop::Abort, async move {
                let mut all: BTreeMap<String, Arc<TrustBundle>> = BTreeMap::new();
                loop {
                    match watcher.next().await {
                        Change::Reset(items) => {
                            all = items.iter().map(|o| (o.head.name.to_string(), bundle(o))).collect()
                        }
                        Change::Set(object) => drop(all.insert(object.head.name.to_string(), bundle(&object))),
                        Change::Gone(object) => drop(all.remove(object.head.name.as_str())),
                    }
                    sender.send_replace(Some(Arc::new(all.values().cloned().collect())));
                }
            });
            receiver
        };
        let mut receiver = self.0.get_or_init(start).clone();
        // The sender lives as long as the agent.
        let _ = receiver.wait_for(Option::is_some).await;
        receiver
    }
}

fn bundle(object: &Arc<Object>) -> Arc<TrustBundle> {
    let tree = object.to_tree();
    let labels = tree.map_at("metadata.labels");
    let labels = labels.iter().filter_map(|(k, v)| Some((k.to_owned(), v.as_str()?.to_owned()))).collect();
    Arc::new(TrustBundle {
        name: object.head.name.to_string(),
        signer: tree.str_at("spec.signerName").into(),
        labels,
        text: tree.str_at("spec.trustBundle").into(),
    })
}

/// A certificate's place: the pod's uid, the volume, and which of its sources.
type Place = (String, String, usize);

/// What has become of a pod's certificate.
enum State {
    /// Asked for under this name, with this key; where there is an old one, it is looked after again then.
    Pending { request: String, key: String, before: Option<Issued>, again_at: Option<Timestamp> },
    /// There.
    Issued(Issued),
    /// Refused until then.
    Refused { why: String, until: Timestamp },
}

#[derive(Clone)]
struct Issued {
    credential: Credential,
    refresh_at: Timestamp,
    not_after: Timestamp,
}

/// The pods' own certificates.
pub struct PodCertificates {
    api: Arc<dyn Api>,
    node: String,
    states: Mutex<HashMap<Place, State>>,
}

impl PodCertificates {
    /// Of the node of this name.
    pub fn new(api: Arc<dyn Api>, node: String) -> PodCertificates {
        PodCertificates { api, node, states: Mutex::default() }
    }

    fn states(&self) -> std::sync::MutexGuard<'_, HashMap<Place, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pod's certificate: asked for if there is none, asked for anew when it is time.
    ///
    /// # Errors
    /// There is none yet, or it was refused; the words of a `FailedMount` event.
    pub async fn credential(
        &self,
        pod: &Pod,
        (volume, source): (&str, usize),
        wanted: &PodCertificateProjection,
        clock: &Arc<dyn Clock>,
    ) -> Result<Credential, String> {
        let place = (pod.metadata.uid.clone(), volume.to_owned(), source);
        let now = clock.now();
        let (mut pending, mut before) = (None, None);
        match self.states().get(&place) {
            Some(State::Issued(issued)) if now < issued.refresh_at => return Ok(issued.credential.clone()),
            Some(State::Issued(issued)) => before = Some(issued.clone()),
            Some(State::Refused { why, until }) if now < *until => return Err(why.clone()),
            Some(State::Pending { before: Some(old), again_at: Some(at), .. }) if now < *at && now < old.not_after => {
                return Ok(old.credential.clone());
            }
            Some(State::Pending { request, key, before: old, .. }) => {
                (pending, before) = (Some((request.clone(), key.clone())), old.clone());
            }
            Some(State::Refused { .. }) | None => {}
        }
        let (request, key) = match pending {
            Some(pending) => pending,
            None => self.ask(pod, wanted).await?,
        };
        let again_at = before.as_ref().map(|_| now + jiff::SignedDuration::from_secs(AGAIN_SECONDS));
        let state = State::Pending { request: request.clone(), key: key.clone(), before: before.clone(), again_at };
        self.states().insert(place.clone(), state);
        let old = before.filter(|b| now < b.not_after).map(|b| b.credential);
        match self.wait(&pod.metadata.namespace, &request, clock).await {
            Ok(Some(status)) => {
                let issued = read(&status, key)?;
                let credential = issued.credential.clone();
                self.states().insert(place, State::Issued(issued));
                Ok(credential)
            }
            // The old one is good for a while: the pod goes on with it.
            Ok(None) => old.ok_or_else(|| "credential bundle is not issued yet".into()),
            Err(why) => {
                let until = now + jiff::SignedDuration::from_secs(REFUSED_SECONDS);
                self.states().insert(place, State::Refused { why: why.clone(), until });
                old.ok_or(why)
            }
        }
    }

    /// When the first of a pod's certificates must be made anew.
    pub fn refresh_at(&self, uid: &str) -> Option<Timestamp> {
        let states = self.states();
        let times = states.iter().filter(|((of, ..), _)| of == uid).filter_map(|(_, state)| match state {
            State::Issued(issued) => Some(issued.refresh_at),
            State::Refused { until, .. } => Some(*until),
            State::Pending { again_at, .. } => *again_at,
        });
        times.min()
    }

    /// Forgets a pod's certificates.
    pub fn forget(&self, uid: &str) {
        self.states().retain(|(of, ..), _| of != uid);
    }

    /// Makes a key and a request for it. The request's name, and the key in PEM.
    async fn ask(&self, pod: &Pod, wanted: &PodCertificateProjection) -> Result<(String, String), String> {
        let key = generate(&wanted.key_type)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request =
            params.serialize_request(&key).map_err(|e| format!("while generating stub PKCS#10 request: {e}"))?;
        let namespace = pod.metadata.namespace.as_str();
        let account = match pod.spec.service_account_name.as_str() {
            "" => "default",
            name => name,
        };
        let get = |kind, namespace: &str, name: &str| {
            let (api, key) = (self.api.clone(), ObjectKey::new(kind, namespace, name));
            async move { api.get(&key).await }
        };
        let found = get(id::SERVICE_ACCOUNT, namespace, account).await;
        let account_uid = found.map_err(|s| format!("while fetching service account: {s}"))?.head.uid.to_string();
        let node = get(id::NODE, "", &self.node).await;
        let node_uid =
            node.map_err(|s| format!("while getting node object from local cache: {s}"))?.head.uid.to_string();
        let seconds = wanted.max_expiration_seconds.map_or(SECONDS, i64::from);
        let meta = &pod.metadata;
        let der = corten_schema::scalars::base64::encode(request.der());
        let mut body = tree!({"apiVersion": "certificates.k8s.io/v1", "kind": "PodCertificateRequest",
            "metadata": {"generateName": "req-", "namespace": namespace, "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": (meta.name.as_str()), "uid": (meta.uid.as_str())}]},
            "spec": {"signerName": (wanted.signer_name.as_str()), "podName": (meta.name.as_str()),
                "podUID": (meta.uid.as_str()), "serviceAccountName": account, "serviceAccountUID": account_uid,
                "nodeName": (self.node.as_str()), "nodeUID": node_uid, "maxExpirationSeconds": seconds,
                "stubPKCS10Request": der}});
        if !wanted.user_annotations.is_empty() {
            let mut annotations = Tree::map();
            for (key, value) in &wanted.user_annotations {
                annotations.insert(key.clone(), value.as_str());
            }
            body.set("spec.unverifiedUserAnnotations", annotations);
        }
        let at = ObjectKey::new(id::POD_CERTIFICATE_REQUEST, namespace, "");
        let made = write::create(&self.api, at, body).await;
        let made = made.map_err(|f| {
            format!("while creating initial PodCertificateRequest: while creating on API: {}", f.status)
        })?;
        let name = made.object.map(|o| o.head.name.to_string()).unwrap_or_default();
        Ok((name, key.serialize_pem()))
    }

    /// The status of a request once it is issued; `None` if that takes too long.
    async fn wait(&self, namespace: &str, name: &str, clock: &Arc<dyn Clock>) -> Result<Option<Tree>, String> {
        let term = |path: &str, value: &str| FieldTerm { path: path.into(), equal: true, value: value.into() };
        let fields = FieldSelector { terms: vec![term("spec.nodeName", &self.node), term("metadata.name", name)] };
        let options = ListOptions { namespace: namespace.into(), labels: None, fields };
        let gone = || format!("PodCertificateRequest {:?} appears to have been deleted", format!("{namespace}/{name}"));
        let list = self.api.list(id::POD_CERTIFICATE_REQUEST, options.clone()).await;
        let list = list.map_err(|s| format!("while getting PodCertificateRequest: {s}"))?;
        let first = list.items.first().ok_or_else(gone)?;
        if let Some(status) = outcome(first)? {
            return Ok(Some(status));
        }
        let events = self.api.watch(id::POD_CERTIFICATE_REQUEST, options, list.revision).await;
        let mut events = events.map_err(|s| format!("while watching PodCertificateRequest: {s}"))?;
        let follow = async {
            while let Some(Ok(event)) = events.next().await {
                if let Some(object) = event.object
                    && let Some(status) = outcome(&object)?
                {
                    return Ok(Some(status));
                }
            }
            Ok(None)
        };
        futures::pin_mut!(follow);
        match futures::future::select(follow, clock.sleep(ISSUE_WAIT)).await {
            futures::future::Either::Left((outcome, _)) => outcome,
            futures::future::Either::Right(_) => Ok(None),
        }
    }
}

/// A request's status if it is issued.
fn outcome(request: &Object) -> Result<Option<Tree>, String> {
    let tree = request.to_tree();
    for condition in tree.list_at("status.conditions") {
        let said = || {
            let (reason, message) = (condition.str_at("reason"), condition.str_at("message"));
            format!("reason={reason:?} message={message:?}")
        };
        match condition.str_at("type") {
            "Issued" => return Ok(tree.get("status").cloned()),
            "Denied" => return Err(format!("PodCertificateRequest was permanently denied: {}", said())),
            "Failed" => return Err(format!("PodCertificateRequest was permanently failed: {}", said())),
            _ => {}
        }
    }
    Ok(None)
}

fn read(status: &Tree, key: String) -> Result<Issued, String> {
    let at = |field: &str| {
        time::parse(status.str_at(field)).ok_or_else(|| format!("the issued certificate's {field} cannot be read"))
    };
    Ok(Issued {
        credential: Credential { key, chain: status.str_at("certificateChain").into() },
        refresh_at: at("beginRefreshAt")?,
        not_after: at("notAfter")?,
    })
}

fn generate(kind: &str) -> Result<KeyPair, String> {
    let algorithm = match kind {
        "ECDSAP256" => &PKCS_ECDSA_P256_SHA256,
        "ECDSAP384" => &PKCS_ECDSA_P384_SHA384,
        "ED25519" => &PKCS_ED25519,
        other => return Err(format!("while generating keypair: key type {other:?} is not implemented on this node")),
    };
    KeyPair::generate_for(algorithm).map_err(|e| format!("while generating keypair: {e}"))
}
