"""Create the client of a bucket from its address: endpoint, region, credentials, timeouts.

Credentials come from the usual places of each cloud, never from an address or an option:

    s3    AWS_* of the environment, web identity, the machine's role; a profile or a shared file, through boto3
    gs    GOOGLE_APPLICATION_CREDENTIALS, the machine's account
    az    AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY, or another of AZURE_*
    http  none

AWS_SKIP_SIGNATURE=true reads a public bucket. The server of S3-compatible storage comes from the settings of the job
(`stores.settings`); the connection is unencrypted only if its address starts with http://.
"""

from __future__ import annotations

import functools
import os
import urllib.parse
from pathlib import Path
from typing import Any

from sketchscale.errors import InputError, SetupError
from sketchscale.io.stores.settings import StorageSettings, check_endpoint, storage_settings

__all__ = ["connect", "split_bucket"]

_OURS = ("AWS_", "AZURE_", "AZURITE_", "GOOGLE_")
_SILENT_S = "86400s"
"""Time limit of a request in the client, effectively off: `stores.retries` has the deadline."""


def split_bucket(address: str) -> tuple[str, str]:
    """Split an address into its bucket (or server) and the prefix inside it.

    Raises:
        InputError: no bucket, a user name or password, or a query.

    >>> split_bucket("s3://plates/2026/a.zarr")
    ('s3://plates', '2026/a.zarr')
    """
    scheme, _, rest = address.partition("://")
    bucket, _, prefix = rest.partition("/")
    if "@" in bucket or (scheme in ("http", "https") and ("?" in rest or "#" in rest)):
        raise InputError.of(
            found=f"an address of {scheme}:// with a user name, a password or a query",
            expected=f"{scheme}://{'server' if scheme.startswith('http') else 'bucket'}/path",
            fix="take it out; credentials come from the environment",
        )
    if not bucket:
        raise InputError.of(found=f"{address}", expected=f"{scheme}://bucket/path", fix="name the bucket")
    if scheme in ("http", "https"):
        prefix = urllib.parse.unquote(prefix)
    return f"{scheme}://{bucket}", prefix.strip("/")


def connect(root: str) -> Any:
    """Return the client of a bucket; the same one while the settings of the job and the environment stay the same."""
    environment = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith(_OURS)))
    return _connect(root, storage_settings(), environment)


@functools.lru_cache(maxsize=32)
def _connect(root: str, settings: StorageSettings, environment: tuple[tuple[str, str], ...]) -> Any:
    import obstore.store  # keeps local work free of its import time

    scheme = root.partition("://")[0]
    options = _client_options(scheme, settings)
    plain = scheme == "http" or str(options.get("endpoint", "")).startswith("http://")
    try:
        return obstore.store.from_url(
            root,
            client_options={
                "allow_http": plain or "AZURE_STORAGE_USE_EMULATOR" in os.environ,
                "connect_timeout": f"{max(1, round(settings.wait_s / 3))}s",
                "timeout": _SILENT_S,
            },
            retry_config={"max_retries": 0},
            **options,
        )
    except (ValueError, obstore.exceptions.BaseError) as error:
        words = " ".join(str(error).split())[:120]
        raise SetupError(f"{root} cannot be opened ({words}); to fix: see its name, region and credentials") from error


def _client_options(scheme: str, settings: StorageSettings) -> dict[str, Any]:
    if scheme == "az":
        endpoint = os.environ.get("AZURE_STORAGE_ENDPOINT")
        return {"endpoint": check_endpoint(endpoint)} if endpoint else {}
    if scheme != "s3":
        return {}
    options: dict[str, Any] = {} if settings.endpoint is None else {"endpoint": settings.endpoint}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    shared = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"
    has_profile = "AWS_PROFILE" in os.environ or Path(shared).expanduser().is_file()
    is_anonymous = os.environ.get("AWS_SKIP_SIGNATURE", "").lower() == "true"
    if has_profile and "AWS_ACCESS_KEY_ID" not in os.environ and not is_anonymous:  # as other tools choose
        options["credential_provider"] = provider = _profile()
        region = region or provider.config.get("region")
    if region:
        options["region"] = region
    return options


def _profile() -> Any:
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise SetupError(
            "AWS credentials in a profile or shared file need boto3; to fix: pip install 'sketchscale[s3]'"
        ) from error
    import botocore.exceptions

    try:
        return Boto3CredentialProvider()
    except (ValueError, botocore.exceptions.BotoCoreError) as error:
        name = os.environ.get("AWS_PROFILE", "default")
        raise SetupError(
            f"AWS profile {name!r} has no credentials ({type(error).__name__}); to fix: aws configure, or AWS_PROFILE"
        ) from error
