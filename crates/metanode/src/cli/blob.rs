//! `metanode blob ...`.

use std::path::PathBuf;

use clap::Subcommand;

/// Blobs are addressed as `bucket/key`; keys are taken byte for byte.
#[derive(Debug, Subcommand)]
pub(crate) enum Blob {
    /// Upload a file or a whole folder.
    Put {
        /// File or folder; `-` reads standard input.
        source: PathBuf,
        /// `bucket/key`, or `bucket/prefix/` to keep the file name or folder below it.
        target: String,
        /// Acknowledge only when all shards are durable.
        #[arg(long)]
        full: bool,
        /// Media type; default: none.
        #[arg(long)]
        content_type: Option<String>,
        /// User metadata, repeatable.
        #[arg(long = "meta", value_name = "NAME=VALUE")]
        metadata: Vec<String>,
        /// Files in flight at once.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
        parallel: u16,
        /// Do not make the bucket when it is missing.
        #[arg(long)]
        no_create: bool,
    },
    /// Download a blob, or with --recursive everything below a prefix.
    Get {
        /// `bucket/key` or `bucket/prefix`.
        source: String,
        /// File or folder to write; `-` or nothing writes to standard output.
        target: Option<PathBuf>,
        /// Take every key below the prefix.
        #[arg(long, short)]
        recursive: bool,
        /// Overwrite files that exist.
        #[arg(long)]
        force: bool,
        /// Bytes FIRST-LAST, FIRST- or -LENGTH.
        #[arg(long, value_name = "RANGE", conflicts_with = "recursive")]
        range: Option<String>,
        /// Files in flight at once.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
        parallel: u16,
    },
    /// List buckets, or keys below a prefix.
    Ls {
        /// `bucket/prefix`; nothing lists the buckets.
        prefix: Option<String>,
        /// Descend into folders instead of folding them.
        #[arg(long, short)]
        recursive: bool,
    },
    /// What is known of one blob.
    Stat {
        /// `bucket/key`.
        blob: String,
    },
    /// Delete a blob, or with --recursive everything below a prefix.
    Rm {
        /// `bucket/key` or `bucket/prefix`.
        blob: String,
        /// Take every key below the prefix.
        #[arg(long, short)]
        recursive: bool,
        /// Also delete the bucket, which must then be empty; the argument is its name.
        #[arg(long)]
        bucket: bool,
    },
}
