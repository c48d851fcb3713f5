"""Put together what speaks to the configured S3 endpoint: TLS, transport, credentials, signer, bucket."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from daemon.addressing import locate
from daemon.bucket import Bucket
from daemon.credentials import CredentialSource, botocore_chain
from daemon.dialing import tls_context
from daemon.errors import ConfigError
from daemon.proxies import refused_proxy
from daemon.runtime import wall_clock_us
from daemon.signing import Signer
from daemon.transport import S3Transport
from daemon.tunables import CONCURRENCY_MAX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from daemon.config import Config
    from daemon.credentials import Chain, CredentialProvider
    from daemon.instruments import Instruments


@asynccontextmanager
async def open_bucket(
    config: Config,
    env: Mapping[str, str],
    *,
    clock_us: Callable[[], int] = wall_clock_us,
    resolve: Callable[[], Chain | None] = botocore_chain,
    credentials: CredentialProvider | None = None,
    instruments: Instruments | None = None,
) -> AsyncIterator[Bucket]:
    """Yield the endpoint's buckets, nothing sent yet; close every connection at the end.

    Args:
        config: the configuration.
        env: the environment: AWS_CA_BUNDLE and proxy variables.
        clock_us: wall clock, microseconds since 1970-01-01 UTC, to sign with.
        resolve: walks the credential chain; blocks, and is first called by the first request.
        credentials: instead of that chain's.
        instruments: time every request.

    Raises:
        ConfigError: a proxy variable applies that would have to be ignored, or the CA bundle is unusable.
    """
    refuse_proxy(config, env)
    encrypted = config.s3.endpoint_url.startswith("https:")
    transport = S3Transport(
        # The uploads at once bound the connections; an operator may raise them in mid-run.
        connections_max=CONCURRENCY_MAX,
        connect_timeout=config.s3.connect_timeout,
        io_timeout=config.s3.io_timeout,
        ssl_context=tls_context(env.get("AWS_CA_BUNDLE") or None) if encrypted else None,
    )
    async with transport:
        yield Bucket(
            transport,
            Signer(config.s3.region),
            config.s3,
            credentials=credentials or CredentialSource(resolve=resolve),
            clock_us=clock_us,
            instruments=instruments,
        )


def refuse_proxy(config: Config, env: Mapping[str, str]) -> None:
    """Refuse to go around a proxy that the environment asks for, at any of the hosts that will be spoken to.

    Raises:
        ConfigError: naming the variable.
    """
    buckets = {source.bucket for source in config.sources}
    addresses = {
        str(locate(bucket, endpoint_url=config.s3.endpoint_url, addressing=config.s3.addressing).url)
        for bucket in buckets
    }
    for url in sorted(addresses):
        name = refused_proxy(env, url)
        if name is not None:
            host = url.partition("://")[2].rstrip("/")
            raise ConfigError(
                [f"connect to {url}: {name} asks for a proxy; expected none, as S3 is spoken to directly"],
                f"unset {name}, or add {host.rpartition(':')[0] or host} to NO_PROXY if going directly is allowed",
            )
