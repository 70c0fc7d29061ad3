//! The part of `cargo xtask bench node` about images: a layer of many small and a few large files, unpacked by Corten, by tar and by
//! containerd.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use corten_testkit::disk::Disk;
use corten_testkit::{cache_dir, run, text};
use serde_json::json;

const DIRECTORIES: usize = 800;
const FILES_PER_DIRECTORY: usize = 15;
/// Bytes of a small file at most.
const SMALL_BYTES_MAX: u64 = 12 << 10;
const LARGE: usize = 30;
const LARGE_BYTES: usize = 5 << 20;
/// Each figure is the median of so many runs, on a new file system: one that has just lost many files (ext4 without a journal, for minutes)
/// is slow to make new ones.
const RUNS: usize = 3;
const CLUSTER: &str = "bench-unpack";
/// The file system's size: all runs' files fit into it.
pub(super) const DISK_MIB: u64 = 8 << 10;

/// A layer in one compression, by itself and as an image.
pub(super) struct Sample {
    pub compression: &'static str,
    layer: PathBuf,
    pub archive: PathBuf,
}

/// All that is measured with, and what it is made of in words.
pub(super) struct Samples {
    dir: PathBuf,
    pub all: Vec<Sample>,
    shape: String,
}

/// What one sample took.
#[derive(Clone, Copy, Default)]
pub(super) struct Times {
    import: Duration,
    unpack: Duration,
    tar: Duration,
    tar_synced: Duration,
}

impl Times {
    fn medians(runs: Vec<Times>) -> Times {
        let of = |pick: fn(&Times) -> Duration| median(runs.iter().map(pick).collect());
        Times {
            import: of(|t| t.import),
            unpack: of(|t| t.unpack),
            tar: of(|t| t.tar),
            tar_synced: of(|t| t.tar_synced),
        }
    }
}

impl Sample {
    fn run(&self, disk: &Path, corten: &Path, n: usize) -> Result<Times> {
        let data = disk.join(format!("data-{}-{n}", self.compression));
        let corten = |args: &[&str], path: Option<&Path>| -> Result<Duration> {
            let mut command = Command::new(corten);
            command.arg("image").args(args).args(["--name", CLUSTER, "--data-dir"]).arg(&data).args(path);
            timed(&mut command)
        };
        // The store and the built-in images.
        corten(&["ls"], None)?;
        settle(disk)?;
        let import = corten(&["import"], Some(&self.archive))?;
        settle(disk)?;
        let unpack = corten(&["import", "--unpack"], Some(&self.archive))?;
        let into = disk.join(format!("tar-{}-{n}", self.compression));
        fs::create_dir(&into)?;
        settle(disk)?;
        let began = Instant::now();
        let mut tar = Command::new("tar");
        run(tar.arg(format!("--{}", self.compression)).arg("-xf").arg(&self.layer).arg("-C").arg(&into))?;
        let tar = began.elapsed();
        run(Command::new("sync").arg("-f").arg(&into))?;
        Ok(Times { import, unpack, tar, tar_synced: began.elapsed() })
    }
}

impl Samples {
    /// Makes the layer; the same one every time.
    pub fn make() -> Result<Samples> {
        let dir = cache_dir().join(CLUSTER);
        fs::remove_dir_all(&dir).ok();
        let tree = dir.join("tree");
        let (files, bytes) = make_tree(&tree)?;
        let plain = dir.join("layer.tar");
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@1000000000", "-cf"]);
        run(tar.arg(&plain).arg("-C").arg(&tree).arg("."))?;
        fs::remove_dir_all(&tree)?;
        let all = [("gzip", "gz", ["gzip", "-6", "-k"]), ("zstd", "zst", ["zstd", "-3", "-q"])].map(
            |(compression, ending, command)| -> Result<Sample> {
                run(Command::new(command[0]).args(&command[1..]).arg(&plain))?;
                image(&dir, compression, &plain, plain.with_extension(format!("tar.{ending}")))
            },
        );
        let all = all.into_iter().collect::<Result<Vec<_>>>()?;
        let mib = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len() >> 20);
        let sizes: Vec<String> = all.iter().map(|s| format!("{} MiB as {}", mib(&s.layer), s.compression)).collect();
        let shape = format!("{files} files with {} MiB, {}", bytes >> 20, sizes.join(", "));
        fs::remove_file(&plain)?;
        Ok(Samples { dir, all, shape })
    }

    /// Corten and tar in turns.
    pub fn measure(&self, corten: &Path) -> Result<Vec<Times>> {
        let disk = Disk::mount(&self.dir.join("disk"), DISK_MIB)?;
        let times = self.measure_on(disk.path(), corten);
        disk.unmount()?;
        times
    }

    fn measure_on(&self, disk: &Path, corten: &Path) -> Result<Vec<Times>> {
        let mut runs = vec![Vec::new(); self.all.len()];
        for n in 0..RUNS {
            for (sample, runs) in self.all.iter().zip(&mut runs) {
                runs.push(sample.run(disk, corten, n)?);
            }
        }
        Ok(runs.into_iter().map(Times::medians).collect())
    }

    /// The same images with `ctr`, which must be told the address: in a namespace for each run, where nothing is unpacked yet.
    pub fn measure_ctr(&self, disk: &Path, ctr: &dyn Fn(&[&str]) -> Command) -> Result<Vec<Duration>> {
        let mut runs = vec![Vec::new(); self.all.len()];
        for n in 0..RUNS {
            for (sample, runs) in self.all.iter().zip(&mut runs) {
                let namespace = format!("{}-{n}", sample.compression);
                settle(disk)?;
                runs.push(timed(ctr(&["--namespace", &namespace, "image", "import"]).arg(&sample.archive))?);
            }
        }
        Ok(runs.into_iter().map(median).collect())
    }

    /// The table.
    pub fn table(&self, ours: &[Times], theirs: Option<&[Duration]>) -> String {
        let mut text = format!(
            "\nUnpacking an image of one layer: {}. Corten's figures include that all is on disk before the layer counts as there; those of \
             containerd and of tar do not, but in the column that says so; containerd, which keeps blobs, copies the archive in its first run only. \
             Corten reads the layer from its store and checks its digest. \
             All on a new ext4 of its own. Medians of {RUNS} runs.\n\n\
             | figure | Corten | tar, then `sync -f` | tar alone | containerd | target |\n|---|---|---|---|---|---|\n",
            self.shape
        );
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        for (n, (sample, times)) in self.all.iter().zip(ours).enumerate() {
            let met = if times.unpack <= times.tar_synced { "met" } else { "missed" };
            text.push_str(&format!(
                "| unpack, {} | {} | {} | {} |  | no slower than tar: {met} |\n",
                sample.compression,
                seconds(times.unpack),
                seconds(times.tar_synced),
                seconds(times.tar)
            ));
            let theirs = theirs.and_then(|all| all.get(n)).map_or_else(|| "—".to_owned(), |time| seconds(*time));
            let all = seconds(times.import + times.unpack);
            text.push_str(&format!("| import and unpack, {} | {all} |  |  | {theirs} |  |\n", sample.compression));
        }
        text
    }

    /// Takes all of it away.
    pub fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.dir).with_context(|| self.dir.display().to_string())
    }
}

/// Nothing of what was before is still being written.
fn settle(disk: &Path) -> Result<()> {
    run(Command::new("sync").arg("-f").arg(disk)).map(drop)
}

fn timed(command: &mut Command) -> Result<Duration> {
    let began = Instant::now();
    run(command)?;
    Ok(began.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Numbers that are the same in every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Directories of small files that compress as text does, large files of which half does not compress at all, and links.
fn make_tree(root: &Path) -> Result<(usize, u64)> {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut files, mut bytes) = (0, 0);
    let mut write = |path: &Path, content: &[u8]| -> Result<()> {
        files += 1;
        bytes += content.len() as u64;
        fs::File::create(path)?.write_all(content)?;
        Ok(())
    };
    for d in 0..DIRECTORIES {
        let dir = root.join(format!("usr/share/p{}/d{d}", d % 40));
        fs::create_dir_all(&dir)?;
        for f in 0..FILES_PER_DIRECTORY {
            let length = 200 + numbers.next() % SMALL_BYTES_MAX;
            write(&dir.join(format!("file{f}.txt")), &words(&mut numbers, length as usize))?;
        }
        symlink("file0.txt", dir.join("latest"))?;
    }
    let dir = root.join("usr/lib");
    fs::create_dir_all(&dir)?;
    for n in 0..LARGE {
        let mut content = words(&mut numbers, LARGE_BYTES / 2);
        while content.len() < LARGE_BYTES {
            content.extend_from_slice(&numbers.next().to_le_bytes());
        }
        write(&dir.join(format!("lib{n}.so")), &content)?;
    }
    Ok((files, bytes))
}

fn words(numbers: &mut Numbers, length: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "return", "static", "int", "value", "node", "struct", "if", "while", "pointer", "0x", "name", "list", "const",
        "break", "size", "else",
    ];
    let mut text = Vec::with_capacity(length + 16);
    while text.len() < length {
        let n = numbers.next();
        text.extend_from_slice(WORDS[(n & 15) as usize].as_bytes());
        text.extend_from_slice(match n >> 4 & 7 {
            0 => b"\n",
            1 => b"_",
            _ => b" ",
        });
        if n >> 8 & 3 == 0 {
            text.extend_from_slice((n >> 40).to_string().as_bytes());
        }
    }
    text.truncate(length);
    text
}

fn digest(path: &Path) -> Result<String> {
    let line = text(Command::new("sha256sum").arg(path))?;
    Ok(line.split(' ').next().unwrap_or_default().to_owned())
}

/// An image of a layer, as an archive with an OCI layout.
fn image(dir: &Path, compression: &'static str, plain: &Path, layer: PathBuf) -> Result<Sample> {
    let layout = dir.join(compression);
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let put = |content: &[u8]| -> Result<(String, usize)> {
        let new = dir.join("blob");
        fs::write(&new, content)?;
        let digest = digest(&new)?;
        fs::rename(new, blobs.join(&digest))?;
        Ok((format!("sha256:{digest}"), content.len()))
    };
    let layer_digest = digest(&layer)?;
    fs::hard_link(&layer, blobs.join(&layer_digest))?;
    let architecture = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
    let diff_id = format!("sha256:{}", digest(plain)?);
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]}
    });
    let (config_digest, config_size) = put(config.to_string().as_bytes())?;
    let layer_size = fs::metadata(&layer)?.len();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config_size
        },
        "layers": [{
            "mediaType": (format!("application/vnd.oci.image.layer.v1.tar+{compression}")),
            "digest": (format!("sha256:{layer_digest}")), "size": layer_size
        }]
    });
    let (manifest_digest, manifest_size) = put(manifest.to_string().as_bytes())?;
    let image = format!("docker.io/library/bench-{compression}:v1");
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest_digest, "size": manifest_size,
            "annotations": {
                "io.containerd.image.name": (image.as_str()), "org.opencontainers.image.ref.name": "v1"
            }
        }]
    });
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let archive = dir.join(format!("{compression}.image.tar"));
    run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&layout).arg("."))?;
    fs::remove_dir_all(&layout)?;
    Ok(Sample { compression, layer, archive })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unpack_table_judges_against_tar() {
        let sample = |compression| Sample { compression, layer: PathBuf::new(), archive: PathBuf::new() };
        let samples = Samples { dir: PathBuf::new(), all: vec![sample("gzip"), sample("zstd")], shape: "some".into() };
        let ms = Duration::from_millis;
        let times = |unpack| Times { import: ms(500), unpack: ms(unpack), tar: ms(900), tar_synced: ms(1000) };
        let table = samples.table(&[times(1000), times(1010)], Some(&[ms(2000)]));
        assert!(table.contains("| unpack, gzip | 1.00 s | 1.00 s | 0.90 s |  | no slower than tar: met |"), "{table}");
        assert!(table.contains("| import and unpack, gzip | 1.50 s |  |  | 2.00 s |  |"), "{table}");
        assert!(table.contains("no slower than tar: missed"), "{table}");
        assert!(table.contains("| import and unpack, zstd | 1.51 s |  |  | — |  |"), "{table}");
    }
}
