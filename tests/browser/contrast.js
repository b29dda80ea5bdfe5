// Visible texts whose contrast with what is behind them is below 4.5 to 1 (WCAG 2, AA).
() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const rgb = (colour, under) => {
        canvas.fillStyle = under; canvas.fillRect(0, 0, 1, 1);
        canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const light = (colour) => {
        const [r, g, b] = colour.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (one) => {
        for (let up = one; up; up = up.parentElement) {
            const colour = getComputedStyle(up).backgroundColor;
            if (!/, 0\)$|transparent/.test(colour)) return colour;
        }
        return getComputedStyle(document.body).backgroundColor;
    };
    const poor = [];
    for (const one of document.querySelectorAll('body *')) {
        const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        const written = own || one.matches('input:not([type=checkbox], [type=range]), textarea, select');
        const off = one.disabled || one.closest('[disabled], .spoken, .skip');
        if (!written || off || !one.checkVisibility({opacityProperty: true})) continue;
        const under = behind(one);
        const [a, b] = [light(rgb(getComputedStyle(one).color, under)), light(rgb(under, '#fff'))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${one.tagName}.${one.className} ${one.textContent.slice(0, 30)}`);
    }
    return poor;
}
