"""Images on a real engine, and from a registry on loopback."""

from __future__ import annotations

import socket

import pytest

from node.runtime.interface import RuntimeFailure
from node.runtime.pause import PAUSE_IMAGE
from tests.lab.engine import Engine
from tests.lab.runtime.pods import Pods
from tests.lab.runtime.registry import AUTH, REPOSITORY, TAG, registry

pytestmark = pytest.mark.lab


@pytest.mark.parametrize(
    "name", ["busybox", "busybox:latest", "library/busybox", "docker.io/library/busybox:latest", "docker.io/busybox"]
)
async def test_a_loaded_image_is_found_by_all_its_names(pods: Pods, name: str) -> None:
    image = await pods.runtime.image(name)
    assert image is not None
    assert image.tags == ("docker.io/library/busybox:latest",)
    assert await pods.runtime.image(image.id) == image


async def test_images_that_are_not_there(pods: Pods) -> None:
    assert await pods.runtime.image("absent:7") is None
    with pytest.raises(RuntimeFailure) as invalid:
        await pods.runtime.image("No/Such Name")
    assert invalid.value.reason == "InvalidImageName"


async def test_the_list_shows_users_and_spares_the_sandboxes_image(docker: Engine, pods: Pods) -> None:
    docker.load_busybox("listed:1", "USER nobody")
    try:
        shown = {image.tags[0]: image for image in await pods.runtime.images() if image.tags}
        assert shown["docker.io/library/listed:1"].user == "nobody"
        assert shown["docker.io/library/listed:1"].size_bytes > 1_000_000
        assert not any(PAUSE_IMAGE in tag for tag in shown)
    finally:
        docker.request("DELETE", "/images/listed:1")


async def test_an_image_in_use_stays_and_goes_with_all_its_names_later(docker: Engine, pods: Pods) -> None:
    docker.load_busybox("doomed:1")
    docker.request("POST", "/images/doomed:1/tag?repo=doomed&tag=2")
    image = await pods.runtime.image("doomed:1")
    assert image is not None
    container = await pods.create("exit 0", image="doomed:2")
    with pytest.raises(RuntimeFailure) as used:
        await pods.runtime.remove_image(image.id)
    assert used.value.reason == "ImageInUse"
    await pods.runtime.remove_container(container)
    await pods.runtime.remove_image(image.id)
    await pods.runtime.remove_image(image.id)
    assert await pods.runtime.image("doomed:1") is None
    assert await pods.runtime.image("doomed:2") is None


async def test_the_sandboxes_image_comes_back_by_itself(docker: Engine, pods: Pods) -> None:
    docker.request("DELETE", f"/images/{PAUSE_IMAGE}?force=1")
    assert (await pods.sandbox()).ready


async def test_pulling_with_and_without_the_password(pods: Pods) -> None:
    with registry() as (address, digest):
        name = f"{address}/{REPOSITORY}"
        for reference, auth in ((f"{name}:{TAG}", None), (f"{name}:{TAG}", {**AUTH, "password": "wrong"})):
            with pytest.raises(RuntimeFailure) as refused:
                await pods.runtime.pull_image(reference, auth)
            assert refused.value.reason == "ErrImagePull"
        image = await pods.runtime.pull_image(f"{name}:{TAG}", AUTH)
        assert (image.tags, image.user) == ((f"{name}:{TAG}",), "1234")
        assert image.digests == (f"{name}@{digest}",)
        assert await pods.runtime.pull_image(f"{name}@{digest}", AUTH) == image
        with pytest.raises(RuntimeFailure, match="manifest unknown") as unknown:
            await pods.runtime.pull_image(f"{name}:v2", AUTH)
        assert unknown.value.reason == "ErrImagePull"
        await pods.runtime.remove_image(image.id)


async def test_pulling_from_where_nobody_is(pods: Pods) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(RuntimeFailure, match="refused") as refused:
            await pods.runtime.pull_image(f"127.0.0.1:{closed.getsockname()[1]}/app:1")
    assert refused.value.reason == "ErrImagePull"
