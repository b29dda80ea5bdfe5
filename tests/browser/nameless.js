// Controls and pictures that a screen reader could not name.
() => [...document.querySelectorAll('button, a[href], input, select, textarea, [role=slider], video, img')]
    .filter((one) => one.type !== 'hidden' && !one.closest('[hidden]') && !one.hidden)
    .filter((one) => {
        if (one.tagName === 'IMG') return !one.hasAttribute('alt');
        const label = one.labels?.length ? [...one.labels].map((label) => label.textContent).join('') : '';
        return !(one.getAttribute('aria-label') || one.getAttribute('aria-labelledby') || label.trim() || one.textContent.trim() || one.tagName === 'VIDEO' && one.closest('button'));
    }).map((one) => one.outerHTML.slice(0, 120))
