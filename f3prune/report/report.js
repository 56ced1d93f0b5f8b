for (const box of document.querySelectorAll('.videos')) {
  const videos = [...box.querySelectorAll('video')], first = videos[0], bar = box.querySelector('.player');
  const play = bar.querySelector('[data-do=play]'), range = bar.querySelector('input');
  const shown = bar.querySelector('output');
  const fps = Number(box.dataset.fps), paused = () => first.paused;
  let length = 0;
  const show = () => {
    if (!length) return;
    range.value = first.currentTime / length;
    shown.textContent = 'frame ' + Math.min(Math.floor(first.currentTime * fps + 0.01), Math.round(length * fps) - 1);
    play.textContent = paused() ? 'Play' : 'Pause';
    play.setAttribute('aria-pressed', String(!paused()));
  };
  const seek = (time) => { for (const video of videos) video.currentTime = time; };
  const follow = () => {
    for (const video of videos.slice(1)) {
      if (Math.abs(video.currentTime - first.currentTime) > 0.5 / fps) video.currentTime = first.currentTime;
    }
    show();
    if (!paused()) requestAnimationFrame(follow);
  };
  const step = (by) => {
    for (const video of videos) video.pause();
    const frames = Math.round(length * fps), now = Math.floor(first.currentTime * fps + 0.01);
    seek(((now + by + frames) % frames + 0.5) / fps);
  };
  const actions = {
    play: () => {
      if (paused()) { seek(first.currentTime); for (const video of videos) video.play(); }
      else for (const video of videos) video.pause();
    },
    back: () => step(-1),
    on: () => step(1),
  };
  for (const button of bar.querySelectorAll('button')) button.addEventListener('click', actions[button.dataset.do]);
  range.addEventListener('input', () => {
    for (const video of videos) video.pause();
    seek(Math.min(range.value * length, length - 0.5 / fps));
  });
  const ready = () => { length = first.duration || 0; show(); };
  first.addEventListener('loadedmetadata', ready);
  first.addEventListener('play', follow);
  for (const event of ['pause', 'seeked', 'timeupdate']) first.addEventListener(event, show);
  // Each would turn back by itself, one before the other.
  first.addEventListener('ended', () => { seek(0); for (const video of videos) video.play(); });
  for (const video of videos) { video.controls = false; video.loop = false; }
  bar.hidden = false;
  ready();
}
