# One entry per chore. `just --list` shows them; every line also works pasted into a shell.

# What the build machine runs.
test:
    ./test

# Formatting, lints, layers.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- --deny warnings
    cargo xtask tidy

fmt:
    cargo fmt --all

# Unit and integration tests of one package: `just unit diaspore-block`.
unit PACKAGE:
    cargo test --locked --package {{PACKAGE}}

# Replays one simulated history and prints its trace.
sim SEED:
    cargo run --locked --package diaspore-tests --example sim -- {{SEED}}

# Many simulated histories on all processors: `just campaign 0 100000`, or with longer ones `just campaign 0 1000 40`.
campaign FROM TO *STEPS:
    cargo run --locked --package diaspore-tests --example campaign -- {{FROM}} {{TO}} {{STEPS}}

# kill -9 of the real process under load, as often as wanted.
kills COUNT:
    DIASPORE_KILLS={{COUNT}} cargo test --locked --package diaspore-tests --test it -- kill --nocapture

# Mutation testing of commit, placement, collection and recovery (docs/mutants.md): `just mutants --sample 300 --budget 20 --jobs 2`.
mutants *ARGS:
    cargo xtask mutants {{ARGS}}

# The block format on the reference engines alone.
reference:
    cargo test --locked --package diaspore-block --no-default-features

# Two builds of metanode, given by path: either reads what the other wrote.
interchange DEFAULT REFERENCE:
    tests/engines/interchange {{DEFAULT}} {{REFERENCE}}

# One decoder under the coverage-guided fuzzer (fuzz/src/lib.rs names them); needs cargo-fuzz and a nightly toolchain.
fuzz TARGET *ARGS:
    cargo +nightly fuzz run {{TARGET}} {{ARGS}}

# The main job over a real LocalStack (installed below target/ on first use).
localstack:
    tests/localstack/setup
    cargo test --locked --package diaspore-tests --test it -- localstack

# Six emulated clouds, half of them lost, every byte compared.
quickstart *ARGS:
    cargo run --release --locked -- quickstart {{ARGS}}

bench *ARGS:
    cargo bench --locked --package diaspore-benches {{ARGS}}

# Licences, advisories, sources; needs cargo-deny.
deny:
    cargo deny --locked check

# The API description as the server serves it is compared with a checked-in file by a test; this accepts a wanted change.
accept-snapshots:
    INSTA_UPDATE=always cargo test --locked --workspace
