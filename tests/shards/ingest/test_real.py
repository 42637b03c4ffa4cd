"""The 15 real clips kept beside the repository: many codecs, rates and sizes, some too short."""

import json

from shards.ingest import main


def test_real_videos_are_kept_or_rejected_for_a_reason(shared_data, tmp_path):
    assert main([str(shared_data / "videos"), str(tmp_path / "d"), "--workers", "1"]) == 0
    report = json.loads((tmp_path / "d/report.json").read_text())
    found = {video["source"]: video for video in report["videos"]}
    short = {name for name, video in found.items() if video["reason"] == "too_short"}
    assert short == {"h265_video.mp4", "newtonscradle.gif", "realshort.mp4", "video_90.mov"}
    assert found["street_10s.mp4"]["reason"] == "no_clip_kept"  # snow, fades, a title, a cut
    assert found["corrupted.mp4"]["clips"] == 2
    assert "Invalid data" in found["corrupted.mp4"]["note"]
    # A camera on a stand, and cuts: clips 64, 128 and 160 of the bikes have one inside them.
    assert found["carphone_pristine.mp4"]["clips"] == 3
    assert {64, 128, 160} <= {start for start, _, _ in found["bikes.mp4"]["rejected"]}
    assert report["counts"]["clips"] == 63
    assert report["counts"]["clips_kept"] >= 45  # 48 with OpenCV 5.0.0
