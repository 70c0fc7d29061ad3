//! How long an archive of images takes to be imported and unpacked into a new store, without a server around it:
//! `cargo run --release -p corten-images --example unpack -- ARCHIVE NEW-DIRECTORY`.

use std::path::Path;
use std::time::Instant;

use corten_images::ImageStore;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [archive, directory] = arguments.as_slice() else {
        return Err("two arguments: an archive and a directory that does not exist".into());
    };
    std::fs::create_dir(directory)?;
    let store = ImageStore::open(Path::new(directory))?;
    let began = Instant::now();
    let imported = store.import(Path::new(archive), None)?;
    println!("import {:.2?}", began.elapsed());
    let began = Instant::now();
    for image in &imported {
        store.unpack(&store.resolve(image.id.as_str())?)?;
    }
    println!("unpack {:.2?}", began.elapsed());
    std::fs::remove_dir_all(directory)?;
    Ok(())
}
