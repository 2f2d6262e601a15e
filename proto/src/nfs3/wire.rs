//! How the fields of arguments and results stand on the wire, and a macro that makes a structure's
//! [`Encode`](crate::xdr::Encode) and [`Decode`](crate::xdr::Decode) of them: the fields, in the order in which
//! the RFC and the structure list them.

/// Declares structures whose XDR is their fields one after the other. Each field names its codec, one of
/// the modules below: `file: &'a [u8] => fh`.
macro_rules! wire {
    ($(
        $(#[$doc:meta])*
        pub struct $name:ident $(<$lt:lifetime>)? {
            $($(#[$fdoc:meta])* pub $field:ident: $ty:ty => $codec:ident),* $(,)?
        }
    )*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name $(<$lt>)? {
            $($(#[$fdoc])* pub $field: $ty),*
        }
        wire!(@impl $name $(<$lt>)? { $($field $codec),* });
    )* };
    (@impl $name:ident { $($field:ident $codec:ident),* }) => {
        impl $crate::xdr::Encode for $name {
            fn encode(&self, w: &mut ::bytes::BytesMut) {
                $($crate::nfs3::wire::$codec::put(w, &self.$field);)*
            }
        }
        impl $crate::xdr::Decode<'_> for $name {
            fn decode(r: &mut $crate::xdr::Reader<'_>) -> $crate::xdr::Result<Self> {
                Ok(Self { $($field: $crate::nfs3::wire::$codec::get(r)?),* })
            }
        }
    };
    (@impl $name:ident <$lt:lifetime> { $($field:ident $codec:ident),* }) => {
        impl $crate::xdr::Encode for $name<'_> {
            fn encode(&self, w: &mut ::bytes::BytesMut) {
                $($crate::nfs3::wire::$codec::put(w, &self.$field);)*
            }
        }
        impl<$lt> $crate::xdr::Decode<$lt> for $name<$lt> {
            fn decode(r: &mut $crate::xdr::Reader<$lt>) -> $crate::xdr::Result<Self> {
                Ok(Self { $($field: $crate::nfs3::wire::$codec::get(r)?),* })
            }
        }
    };
}

macro_rules! opaque_codec {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        pub mod $name {
            use crate::xdr::{Put, Reader, Result};
            use bytes::BytesMut;

            pub fn put(w: &mut BytesMut, v: &[u8]) {
                w.put_opaque(v);
            }

            pub fn get<'a>(r: &mut Reader<'a>) -> Result<&'a [u8]> {
                r.opaque($max)
            }
        }
    };
}

opaque_codec!(
    /// `nfs_fh3`.
    fh, crate::nfs3::NFS3_FHSIZE
);
opaque_codec!(
    /// `filename3`.
    name, crate::nfs3::MAX_NAME_WIRE
);
opaque_codec!(
    /// `nfspath3`.
    path, crate::nfs3::MAX_PATH_WIRE
);
opaque_codec!(
    /// The data of READ and WRITE.
    data, crate::nfs3::MAX_DATA
);

/// What has an [`Encode`](crate::xdr::Encode) and a [`Decode`](crate::xdr::Decode) of its own.
pub mod val {
    use crate::xdr::{Decode, Encode, Reader, Result};
    use bytes::BytesMut;

    pub fn put<T: Encode>(w: &mut BytesMut, v: &T) {
        v.encode(w);
    }

    pub fn get<'a, T: Decode<'a>>(r: &mut Reader<'a>) -> Result<T> {
        T::decode(r)
    }
}

/// `bool`.
pub mod flag {
    use crate::xdr::{Put, Reader, Result};
    use bytes::BytesMut;

    pub fn put(w: &mut BytesMut, v: &bool) {
        w.put_bool(*v);
    }

    pub fn get(r: &mut Reader<'_>) -> Result<bool> {
        r.bool()
    }
}

/// `post_op_fh3`.
pub mod post_fh {
    use crate::xdr::{Put, Reader, Result};
    use bytes::BytesMut;

    pub fn put(w: &mut BytesMut, v: &Option<&[u8]>) {
        w.put_bool(v.is_some());
        if let Some(v) = v {
            w.put_opaque(v);
        }
    }

    pub fn get<'a>(r: &mut Reader<'a>) -> Result<Option<&'a [u8]>> {
        r.option(|r| r.opaque(crate::nfs3::NFS3_FHSIZE))
    }
}

/// An optional item that has an [`Encode`](crate::xdr::Encode) of its own.
pub mod opt {
    use crate::xdr::{Decode, Encode, Put, Reader, Result};
    use bytes::BytesMut;

    pub fn put<T: Encode>(w: &mut BytesMut, v: &Option<T>) {
        w.put_option(v.as_ref());
    }

    pub fn get<'a, T: Decode<'a>>(r: &mut Reader<'a>) -> Result<Option<T>> {
        r.option(T::decode)
    }
}
