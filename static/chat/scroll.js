/** Closer to the end than this counts as "at the end" (px): a finger is not exact. */
const SLACK = 32;

/**
 * Keeps a scroller at its end while its content grows, from `toEnd()` until the person scrolls up or `release()`; scrolling
 * back to the end holds it there again.
 */
export class StickToEnd {
  #scroller;
  #held = false;
  #lastTop = 0;
  #toldAtEnd = true;
  /** @type {(atEnd: boolean) => void} */
  #onChange;

  /**
   * @param {HTMLElement} scroller
   * @param {HTMLElement} content  what grows inside it
   * @param {(atEnd: boolean) => void} onChange  called when it is held at its end, has nothing to scroll, or is neither any more
   */
  constructor(scroller, content, onChange) {
    this.#scroller = scroller;
    this.#onChange = onChange;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    // The first upward wheel notch must win against content that grows in the same frame.
    scroller.addEventListener("wheel", (event) => event.deltaY < 0 && this.#canScroll() && this.#hold(false), { passive: true });
    const observer = new ResizeObserver(() => this.#follow());
    observer.observe(content);
    observer.observe(scroller);
  }

  toEnd() {
    this.#hold(true);
    this.#follow();
  }

  release() {
    this.#hold(false);
  }

  #canScroll() {
    return this.#scroller.scrollHeight > this.#scroller.clientHeight + 1;
  }

  #follow() {
    if (this.#held) {
      this.#scroller.scrollTop = this.#scroller.scrollHeight;
      this.#lastTop = this.#scroller.scrollTop; // Less than before, where a long answer made room for another: that was no person.
    }
    this.#tell();
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    const atEnd = scrollHeight - clientHeight - scrollTop <= SLACK;
    if (atEnd) this.#hold(true);
    else if (scrollTop < this.#lastTop) this.#hold(false); // Growing content never moves upwards: this was the person.
    else if (this.#held) this.#follow(); // Content that went and came again within a frame has the size it had, and is not told of.
    this.#lastTop = this.#scroller.scrollTop;
  }

  /** @param {boolean} held */
  #hold(held) {
    if (held === this.#held) return;
    this.#held = held;
    this.#tell();
  }

  #tell() {
    const atEnd = this.#held || !this.#canScroll();
    if (atEnd === this.#toldAtEnd) return;
    this.#toldAtEnd = atEnd;
    this.#onChange(atEnd);
  }
}
