//! `corten image`: the image store below the data directory, also while a server runs on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use corten_base::Clock;
use corten_images::{BuildOptions, Builtin, BuiltinImage, Hosts, ImageConfig, ImageStore, Registry};
use corten_node::StoreImages;
use corten_toolbox::APPLETS;

use crate::args::ImageCommand;
use crate::host;
use crate::paths::Cluster;
use crate::progress::Step;

/// What the built-in root runs as. The web server comes in two versions, so that there is something to roll out.
const BUILTIN: &[BuiltinImage<'_>] = &[
    BuiltinImage { name: "corten.dev/toolbox:latest", entrypoint: &[], cmd: &["/bin/sleep", "infinity"], env: &[] },
    BuiltinImage { name: "corten.dev/web:v1", entrypoint: &["/bin/httpd"], cmd: &[], env: &["VERSION=v1"] },
    BuiltinImage { name: "corten.dev/web:v2", entrypoint: &["/bin/httpd"], cmd: &[], env: &["VERSION=v2"] },
    BuiltinImage { name: "corten.dev/pause:latest", entrypoint: &["/bin/pause"], cmd: &[], env: &[] },
];

/// Makes the images that are made of this executable. Blocks for some milliseconds, the first time for a copy of the binary.
///
/// # Errors
/// If the store or the executable cannot be read or written.
pub fn ensure_builtin(store: &ImageStore) -> Result<()> {
    let executable = std::env::current_exe().context("where is this program?")?;
    let applets: Vec<&str> = APPLETS.iter().map(|a| a.name).collect();
    let builtin = Builtin { executable: &executable, applets: &applets, images: BUILTIN };
    store.ensure_builtin(&builtin).context("the built-in images")?;
    Ok(())
}

/// The node's images: those that were brought along, then what registries have. Configuration is looked for beside the data and in
/// `/etc/corten`: `registries/HOST/hosts.toml` for mirrors, `registries/config.json` for the node's own logins.
pub fn of_node(store: ImageStore, data: &Path, clock: Arc<dyn Clock>) -> Arc<StoreImages> {
    match store.preload(&data.join("preload-images")) {
        Ok(done) => {
            for (path, outcome) in done {
                match outcome {
                    Ok(images) => {
                        tracing::info!(archive = %path.display(), images = images.len(), "images were imported")
                    }
                    Err(error) => {
                        tracing::error!(archive = %path.display(), %error, "an archive of images was left out")
                    }
                }
            }
        }
        Err(error) => tracing::error!(%error, "the images that were brought along cannot be read"),
    }
    let dirs = vec![data.join("registries"), PathBuf::from("/etc/corten/registries")];
    let logins = dirs.iter().map(|dir| dir.join("config.json")).collect();
    let registry = Registry::new(Hosts { dirs }, clock.clone());
    Arc::new(StoreImages::new(store, registry, logins, clock))
}

/// Runs an image command.
///
/// # Errors
/// What is wrong with the image or the store.
pub fn run(command: ImageCommand) -> Result<()> {
    host::become_root()?;
    match command {
        ImageCommand::Import { cluster, source, tag, unpack } => {
            let step = Step::begin(format!("importing {}", source.display()));
            let store = open(&Cluster::new(&cluster)?)?;
            let imported = store.import(&source, tag.as_deref())?;
            for image in imported.iter().filter(|_| unpack) {
                store.unpack(&store.resolve(image.id.as_str())?)?;
            }
            step.done();
            for image in imported {
                image.names.iter().for_each(|name| println!("{name}  {}", image.id));
            }
        }
        ImageCommand::Build { cluster, directory, tag, entrypoint, cmd, env, workdir, user } => {
            let step = Step::begin(format!("building {tag} of {}", directory.display()));
            let given =
                !(entrypoint.is_empty() && cmd.is_empty() && env.is_empty() && workdir.is_none() && user.is_none());
            let config = ImageConfig {
                entrypoint,
                cmd,
                env,
                working_dir: workdir.unwrap_or_default(),
                user: user.unwrap_or_default(),
                ..ImageConfig::default()
            };
            let options = BuildOptions { config: given.then_some(config), ..BuildOptions::default() };
            let image = open(&Cluster::new(&cluster)?)?.build(&directory, &tag, &options)?;
            step.done();
            image.names.iter().for_each(|name| println!("{name}  {}", image.id));
        }
        ImageCommand::Ls { cluster } => list(&open(&Cluster::new(&cluster)?)?)?,
        ImageCommand::Rm { cluster, names } => {
            let store = open(&Cluster::new(&cluster)?)?;
            for name in names {
                store.remove(&name)?.names.iter().for_each(|gone| println!("removed {gone}"));
            }
        }
    }
    Ok(())
}

fn open(cluster: &Cluster) -> Result<ImageStore> {
    open_at(&cluster.data)
}

/// Opens the image store of a data directory.
///
/// # Errors
/// If it cannot be made or read.
pub fn open_at(data: &Path) -> Result<ImageStore> {
    ImageStore::open(data).with_context(|| format!("the image store in {}", data.display()))
}

fn list(store: &ImageStore) -> Result<()> {
    let images = store.list()?;
    let width = images.iter().map(|i| i.name.len()).max().unwrap_or(0).max("NAME".len());
    println!("{:<width$}   {:<12}   SIZE", "NAME", "ID");
    for image in images {
        let size = image.size as f64 / f64::from(1 << 20);
        println!("{:<width$}   {:<12}   {size:.1} MiB", image.name, &image.id.hex()[..12]);
    }
    Ok(())
}
