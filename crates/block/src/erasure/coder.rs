//! The two coders. The reference is the `reed-solomon-erasure` crate; `rusty_erasure` is driven with the same matrix.

use reed_solomon_erasure::galois_8::ReedSolomon;

use crate::error::{BlockError, Result};
use crate::geometry::Geometry;

const ENGINE: BlockError = BlockError::Engine { what: "erasure coder" };

/// One column of one geometry at a time.
pub trait ShardCoder: Sized {
    /// Work that depends on which shards are there, not on their bytes.
    type Plan;
    /// Builds the matrix.
    fn new(geometry: Geometry) -> Result<Self>;
    /// k data slices in, n - k parity slices out, all of one length.
    fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<()>;
    /// Prepares to rebuild `wanted` out of the k shards `present`.
    fn plan(&self, present: &[u8], wanted: u8) -> Result<Self::Plan>;
    /// Rebuilds one column of `wanted`.
    fn rebuild(&self, plan: &Self::Plan, present: &[(u8, &[u8])], wanted: u8, out: &mut [u8]) -> Result<()>;
}

/// The coder this build uses.
#[cfg(feature = "fast")]
pub type DefaultCoder = FastCoder;
/// The coder this build uses.
#[cfg(not(feature = "fast"))]
pub type DefaultCoder = ReferenceCoder;

/// The `reed-solomon-erasure` crate: the reference.
#[derive(Debug)]
pub struct ReferenceCoder {
    code: ReedSolomon,
    geometry: Geometry,
}

impl ShardCoder for ReferenceCoder {
    type Plan = ();

    fn new(geometry: Geometry) -> Result<Self> {
        let code = ReedSolomon::new(usize::from(geometry.k()), usize::from(geometry.f())).map_err(|_| ENGINE)?;
        Ok(Self { code, geometry })
    }

    fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<()> {
        self.code.encode_sep(data, parity).map_err(|_| ENGINE)
    }

    fn plan(&self, _present: &[u8], _wanted: u8) -> Result<()> {
        Ok(())
    }

    fn rebuild(&self, _plan: &(), present: &[(u8, &[u8])], wanted: u8, out: &mut [u8]) -> Result<()> {
        let mut shards: Vec<Option<Vec<u8>>> = vec![None; usize::from(self.geometry.n())];
        for (index, bytes) in present {
            *shards.get_mut(usize::from(*index)).ok_or(ENGINE)? = Some(bytes.to_vec());
        }
        self.code.reconstruct(&mut shards).map_err(|_| ENGINE)?;
        let rebuilt = shards.get(usize::from(wanted)).and_then(Option::as_ref).ok_or(ENGINE)?;
        if rebuilt.len() != out.len() {
            return Err(ENGINE);
        }
        out.copy_from_slice(rebuilt);
        Ok(())
    }
}

/// The `rusty_erasure` crate.
#[cfg(feature = "fast")]
#[derive(Debug)]
pub struct FastCoder {
    coder: rusty_erasure::Coder,
    geometry: Geometry,
}

#[cfg(feature = "fast")]
impl ShardCoder for FastCoder {
    type Plan = rusty_erasure::DecodePlan;

    fn new(geometry: Geometry) -> Result<Self> {
        let matrix = rusty_erasure::compat::reed_solomon_erasure_matrix(usize::from(geometry.k()), usize::from(geometry.f()));
        let coder = matrix.and_then(rusty_erasure::coder).map_err(|_| ENGINE)?;
        Ok(Self { coder, geometry })
    }

    fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<()> {
        self.coder.encode(data, parity).map_err(|_| ENGINE)
    }

    fn plan(&self, present: &[u8], wanted: u8) -> Result<Self::Plan> {
        let there: Vec<bool> = (0..self.geometry.n()).map(|index| present.contains(&index)).collect();
        self.coder.decode_plan(&there, &[usize::from(wanted)]).map_err(|_| ENGINE)
    }

    fn rebuild(&self, plan: &Self::Plan, present: &[(u8, &[u8])], _wanted: u8, out: &mut [u8]) -> Result<()> {
        let mut shards: Vec<Option<&[u8]>> = vec![None; usize::from(self.geometry.n())];
        for (index, bytes) in present {
            *shards.get_mut(usize::from(*index)).ok_or(ENGINE)? = Some(bytes);
        }
        self.coder.recover_with(plan, &shards, &mut [out]).map_err(|_| ENGINE)
    }
}
