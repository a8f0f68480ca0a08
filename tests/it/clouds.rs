//! Emulated S3 accounts over loopback sockets, configured as the providers of a home folder.

use diaspore_testkit::{EmulatorConfig, EmulatorHandle};

use crate::program::Place;

/// Accounts `c1`, `c2`, ... of domains `d1`, `d2`, ...; they live as long as this does.
pub(crate) struct Clouds {
    pub(crate) handles: Vec<EmulatorHandle>,
    _runtime: tokio::runtime::Runtime,
}

impl Clouds {
    /// Five accounts, any three of which rebuild.
    pub(crate) fn three_of_five(place: &mut Place) -> Self {
        Self::start(place, 5, 3)
    }

    /// Six accounts, any three of which rebuild.
    pub(crate) fn three_of_six(place: &mut Place) -> Self {
        Self::start(place, 6, 4)
    }

    /// `count` accounts of which any `factor` - 1 may be lost.
    fn start(place: &mut Place, count: usize, factor: u8) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let handles: Vec<_> = (1..=count)
            .map(|index| {
                let cloud =
                    EmulatorConfig::memory().with_bucket("shards").with_credentials(&format!("KEY{index}"), &format!("secret-{index}"));
                runtime.block_on(cloud.start()).unwrap()
            })
            .collect();
        let names: Vec<String> = (1..=count).map(|index| format!("c{index}")).collect();
        let limits = format!("--replication-factor {factor} --max-cloud-providers {count}");
        place.run(&format!("storage distributed init --providers {} {limits}", names.join(","))).exits(0);
        for (cloud, index) in handles.iter().zip(1..) {
            let flags = format!("--preset s3 --endpoint {} --bucket shards --domain d{index}", cloud.endpoint());
            place.run(&format!("storage providers configure --name c{index} {flags}")).exits(0);
            credentials(place, index, &format!("secret-{index}"));
        }
        Self { handles, _runtime: runtime }
    }

    /// Pulls the plug of the first `count`.
    pub(crate) fn kill(&self, count: usize) {
        self.handles.iter().take(count).for_each(EmulatorHandle::kill);
    }

    /// Brings all of them back.
    pub(crate) fn resume(&self) {
        self.handles.iter().for_each(|cloud| cloud.resume().unwrap());
    }
}

/// Gives account `c<index>` this secret in the environment.
pub(crate) fn credentials(place: &mut Place, index: usize, secret: &str) {
    place.set(&format!("DIASPORE_C{index}_ACCESS_KEY_ID"), &format!("KEY{index}"));
    place.set(&format!("DIASPORE_C{index}_SECRET_ACCESS_KEY"), secret);
}
