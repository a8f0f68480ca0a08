//! Writes the golden vectors: `cargo run -p diaspore-block --example vectors -- tests/vectors`.

#[path = "generate.rs"]
mod generate;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).ok_or("give the folder to write to, for example tests/vectors")?;
    let folder = std::path::PathBuf::from(folder);
    for (name, bytes) in generate::files()? {
        std::fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}
