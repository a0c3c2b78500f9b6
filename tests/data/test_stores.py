"""Stores of decoded images."""

import os
import threading

import numpy as np

from rotnet_keras.data.stores import decode_and_store

COUNT, SHAPE = 6, (2, 2, 1)


def test_two_that_decode_under_one_key_do_not_mix(tmp_path, monkeypatch):
    """Also as processes of two hosts or containers, which may have the same number."""
    monkeypatch.setenv("ROTNET_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(os, "getpid", lambda: 7)
    together = threading.Barrier(2, timeout=30)
    failed, found = [], {}

    def images(value):
        for label in range(COUNT):
            together.wait()
            yield np.full(SHAPE, value, np.uint8), label

    def store(value):
        try:
            store, labels, bad = decode_and_store(COUNT, SHAPE, lambda: images(value), "disk", "key")
            found[value] = (np.unique(store[np.arange(COUNT)]).tolist(), labels.tolist(), bad)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=store, args=(value,)) for value in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for values, labels, bad in found.values():
        assert values in ([1], [2]) and labels == list(range(COUNT)) and bad == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key.index.npz", "key.pixels"]
