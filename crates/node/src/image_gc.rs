//! Garbage collection of images: when the disk that holds them is nearly full, and when they have not been used for long
//! (`pkg/kubelet/images/image_gc_manager.go`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use corten_base::Timestamp;
use jiff::SignedDuration;

use crate::images::StoredImage;
use crate::shared::Shared;

/// When images go. The defaults are the kubelet's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImagePolicy {
    /// From this use of the disk on, in percent, images are removed.
    pub high_percent: u64,
    /// Until the use is down to this, in percent.
    pub low_percent: u64,
    /// Younger ones stay, in seconds: they may have been pulled for a container that is about to start.
    pub age_seconds_min: i64,
    /// Those that have not been used for longer go whatever the disk says, in seconds; zero: never.
    pub age_seconds_max: i64,
    /// Pause between two looks, in seconds (`ImageGCPeriod`).
    pub period_seconds: u64,
}

impl Default for ImagePolicy {
    fn default() -> ImagePolicy {
        ImagePolicy { high_percent: 85, low_percent: 80, age_seconds_min: 120, age_seconds_max: 0, period_seconds: 300 }
    }
}

/// What is remembered of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    first: Timestamp,
    /// When it was last in use; `None` if never since this agent began.
    used: Option<Timestamp>,
}

/// A disk, in bytes.
#[derive(Debug, Clone, Copy)]
struct Disk {
    capacity: u64,
    available: u64,
}

/// What this agent knows of the images' use. There are no more entries than images.
#[derive(Debug)]
struct Collector {
    began: Timestamp,
    seen: HashMap<String, Seen>,
}

/// What to remove.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    remove: Vec<String>,
    /// Bytes that should be freed and that no image can give.
    short: u64,
}

impl Collector {
    /// Notes which images there are and which are used (`detectImages`).
    fn observe(&mut self, images: &[StoredImage], now: Timestamp) {
        self.seen.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in images {
            let seen = self.seen.entry(image.id.clone()).or_insert(Seen { first: now, used: None });
            if image.used {
                seen.used = Some(now);
            }
        }
    }

    /// Which images go, the one that was used least recently first. `wanted` asks for that many bytes whatever the disk says.
    fn plan(
        &self,
        images: &[StoredImage],
        disk: Disk,
        policy: &ImagePolicy,
        wanted: Option<u64>,
        now: Timestamp,
    ) -> Plan {
        let age = |since: Timestamp| now.duration_since(since);
        let mut free: Vec<(&StoredImage, Seen)> = images
            .iter()
            .filter(|image| !image.used && !image.pinned)
            .filter_map(|image| self.seen.get(&image.id).map(|seen| (image, *seen)))
            .collect();
        free.sort_by_key(|(image, seen)| (seen.used, seen.first, image.id.clone()));
        let mut plan = Plan::default();
        let oldest = SignedDuration::from_secs(policy.age_seconds_max);
        if policy.age_seconds_max > 0 && age(self.began) > oldest {
            free.retain(|(image, seen)| {
                let old = age(seen.used.unwrap_or(seen.first)) > oldest;
                if old {
                    plan.remove.push(image.id.clone());
                }
                !old
            });
        }
        let available = disk.available.min(disk.capacity);
        let over = disk.capacity > 0 && 100 - available * 100 / disk.capacity >= policy.high_percent;
        let target = disk.capacity / 100 * (100 - policy.low_percent);
        let mut missing = match wanted {
            Some(bytes) => bytes,
            None if over => target.saturating_sub(available),
            None => return plan,
        };
        for (image, seen) in free {
            if missing == 0 {
                break;
            }
            if age(seen.first) >= SignedDuration::from_secs(policy.age_seconds_min) {
                plan.remove.push(image.id.clone());
                missing = missing.saturating_sub(image.size);
            }
        }
        plan.short = if wanted.is_some() { 0 } else { missing };
        plan
    }
}

/// Collects images of a node.
pub struct ImageCollector {
    state: Mutex<Collector>,
    policy: ImagePolicy,
}

impl ImageCollector {
    /// A collector that knows nothing yet.
    pub fn new(policy: ImagePolicy, now: Timestamp) -> ImageCollector {
        ImageCollector { state: Mutex::new(Collector { began: now, seen: HashMap::new() }), policy }
    }

    /// Looks now and then. Runs until it is dropped. A threshold of 100 percent without a greatest age means: never
    /// (`StartGarbageCollection`).
    pub async fn run(&self, shared: Arc<Shared>) {
        if self.policy.high_percent >= 100 && self.policy.age_seconds_max == 0 {
            return;
        }
        loop {
            if let Err(error) = self.collect(&shared, false).await {
                tracing::warn!(error, "image garbage collection failed");
            }
            shared.clock.sleep(Duration::from_secs(self.policy.period_seconds)).await;
        }
    }

    /// Removes images as the policy says, or all that nothing uses (`DeleteUnusedImages`, at eviction); the bytes that this freed.
    ///
    /// # Errors
    /// If an image cannot be removed, or the disk stays fuller than the policy wants.
    pub async fn collect(&self, shared: &Arc<Shared>, all: bool) -> Result<u64, String> {
        let images = shared.images.stored().await?;
        let now = shared.clock.now();
        let disk = rustix::fs::statvfs(&shared.config.data_dir).map_err(|error| error.to_string())?;
        let disk = Disk { capacity: disk.f_blocks * disk.f_frsize, available: disk.f_bavail * disk.f_frsize };
        if disk.capacity == 0 {
            let message = "invalid capacity 0 on image filesystem";
            shared.events.node(true, "InvalidDiskCapacity", message);
            return Err(message.into());
        }
        let plan = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.observe(&images, now);
            state.plan(&images, disk, &self.policy, all.then_some(u64::MAX), now)
        };
        let mut freed = 0;
        for id in &plan.remove {
            shared.images.remove(id.clone()).await?;
            freed += images.iter().find(|image| image.id == *id).map_or(0, |image| image.size);
            tracing::info!(image = id, "an image was removed to free its bytes");
        }
        if plan.short == 0 {
            return Ok(freed);
        }
        let message = format!(
            "Insufficient free disk space on the node's image filesystem ({}% of {} used). Failed to free sufficient space by \
             deleting unused images (freed {freed} bytes). Investigate disk usage, as it could be used by active images, logs, volumes, \
             or other data.",
            100 - disk.available.min(disk.capacity) * 100 / disk.capacity,
            size(disk.capacity)
        );
        shared.events.node(true, "FreeDiskSpaceFailed", &message);
        Err(message)
    }
}

/// `formatSize`: with one digit, in powers of 1024.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn image(id: &str, size: u64) -> StoredImage {
        StoredImage { id: id.into(), size, ..StoredImage::default() }
    }

    fn collector() -> Collector {
        Collector { began: at(0), seen: HashMap::new() }
    }

    const FULL: Disk = Disk { capacity: 1000, available: 100 };
    const ROOMY: Disk = Disk { capacity: 1000, available: 500 };

    #[test]
    fn images_go_by_threshold_the_least_recently_used_first() {
        let mut state = collector();
        let policy = ImagePolicy::default();
        let mut images = vec![image("a", 60), image("b", 60), image("c", 60), image("used", 60), image("pinned", 60)];
        images[4].pinned = true;
        images[1].used = true;
        state.observe(&images, at(0));
        images[1].used = false;
        images[3].used = true;
        state.observe(&images, at(10));
        // 90 % are used: down to 80 % that is 100 bytes, of a and c, which were never used.
        let plan = state.plan(&images, FULL, &policy, None, at(600));
        assert_eq!(plan, Plan { remove: vec!["a".into(), "c".into()], short: 0 });
        assert_eq!(state.plan(&images, ROOMY, &policy, None, at(600)), Plan::default());
        let all = state.plan(&images, ROOMY, &policy, Some(u64::MAX), at(600));
        assert_eq!(all.remove, ["a", "c", "b"]);
        // What has just come is not taken; then there is too little to take.
        assert_eq!(state.plan(&images, FULL, &policy, None, at(60)), Plan { remove: Vec::new(), short: 100 });
        let few = [images[0].clone(), images[3].clone(), images[4].clone()];
        assert_eq!(state.plan(&few, FULL, &policy, None, at(600)), Plan { remove: vec!["a".into()], short: 40 });
    }

    #[test]
    fn images_go_by_age() {
        let mut state = collector();
        let policy = ImagePolicy { age_seconds_max: 1000, ..ImagePolicy::default() };
        let mut images = vec![image("old", 1), image("was-used", 1), image("used", 1)];
        images[2].used = true;
        state.observe(&images, at(0));
        images[1].used = true;
        state.observe(&images, at(900));
        images[1].used = false;
        assert_eq!(state.plan(&images, ROOMY, &policy, None, at(1000)), Plan::default());
        assert_eq!(state.plan(&images, ROOMY, &policy, None, at(1001)).remove, ["old"]);
        assert_eq!(state.plan(&images, ROOMY, &policy, None, at(1901)).remove, ["old", "was-used"]);
        // A new agent waits until it could know.
        let mut fresh = Collector { began: at(1900), seen: HashMap::new() };
        fresh.observe(&images, at(1900));
        assert_eq!(fresh.plan(&images, ROOMY, &policy, None, at(2500)), Plan::default());
    }

    #[test]
    fn sizes_are_shown_as_upstream_does() {
        assert_eq!([size(7), size(1536), size(5 << 30)], ["7 B", "1.5 KiB", "5.0 GiB"]);
    }
}
